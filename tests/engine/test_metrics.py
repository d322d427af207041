"""metrics.jsonl and the TensorBoard files hold the same rows, valid JSON, and no step twice."""

import json
import math
from contextlib import closing
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from evomask.engine.metrics import MONITOR, MetricsLog, read_metrics


def write(run: Path, steps: range, first_step: int = 0, scale: float = 1.0) -> None:
    with closing(MetricsLog(run, first_step)) as log:
        for step in steps:
            log.write({"step": step, "loss": scale * step})


def test_rows_are_read_as_they_were_written(tmp_path: Path) -> None:
    rows = [{"step": 9, "epoch": 0, "loss": 0.1 + 0.2, "lr": 1e-30}, {"step": 19, "epoch": 1, "loss": -1.5e300, "lr": 0.0}]
    with closing(MetricsLog(tmp_path, 0)) as log:
        for row in rows:
            log.write(row)
    assert read_metrics(tmp_path) == rows


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []


def test_a_row_is_on_the_disk_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with closing(MetricsLog(tmp_path, 0)) as log:
        log.write({"step": 0, "loss": 1.0})
        assert read_metrics(tmp_path) == [{"step": 0, "loss": 1.0}]


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    with closing(MetricsLog(tmp_path, 0)) as log:
        log.write({"step": 0, "loss": math.nan, "grad_norm": math.inf, "lr": 1.0})

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    row = json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=refuse)
    assert row == {"step": 0, "loss": None, "grad_norm": None, "lr": 1.0}
    assert read_metrics(tmp_path) == [{"step": 0, "lr": 1.0}]
    before = (tmp_path / "metrics.jsonl").read_text()
    write(tmp_path, range(0), first_step=1)
    assert (tmp_path / "metrics.jsonl").read_text() == before, "a run that goes on keeps them"


def test_rows_of_steps_that_are_done_again_are_dropped(tmp_path: Path) -> None:
    write(tmp_path, range(6))
    write(tmp_path, range(4, 8), first_step=4, scale=10)
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [
        *((0, 0), (1, 1), (2, 2), (3, 3)),
        *((4, 40), (5, 50), (6, 60), (7, 70)),
    ]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n{"st\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"line 2 of .*metrics.jsonl is damaged: delete it"):
        read_metrics(tmp_path)


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, range(3))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-7])
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1]
    write(tmp_path, range(2, 4), first_step=2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [0, 1, 2, 3]


def test_tensorboard_reads_the_same_values_and_no_step_twice(tmp_path: Path) -> None:
    write(tmp_path, range(6))
    write(tmp_path, range(4, 8), first_step=4, scale=10)
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert board.Tags()["scalars"] == ["loss"]
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [
        *((0, 0), (1, 1), (2, 2), (3, 3)),
        *((4, 40), (5, 50), (6, 60), (7, 70)),
    ]


def test_a_rarer_log_leaves_the_first_one_to_tensorboard(tmp_path: Path) -> None:
    with closing(MetricsLog(tmp_path, 0)) as log:
        for step in range(4):
            with closing(MetricsLog(tmp_path, step, MONITOR)) as rarer:
                rarer.write({"step": step, "knn": 10 * step})
            log.write({"step": step, "loss": step})
    for folder, name, scale in (("tensorboard", "loss", 1), ("tensorboard/monitor", "knn", 10)):
        board = EventAccumulator(str(tmp_path / folder)).Reload()
        assert board.Tags()["scalars"] == [name]
        assert [(event.step, event.value) for event in board.Scalars(name)] == [(step, scale * step) for step in range(4)]
