"""A run goes on with another number of processes, and spread in another way, as if nothing had happened."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomask.engine.checkpoint import checkpoints, load_checkpoint
from evomask.engine.metrics import read_metrics

EPOCHS, IMAGES, STEPS, STEPS_PER_EPOCH = 7, 64, 56, 8
Start = Callable[..., Any]


def losses(run: Path) -> list[float]:
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == list(range(STEPS))
    return [row["loss"] for row in rows]


def test_from_four_to_two_to_one(start: Start, tiny: list[str], record: str, undisturbed: Path, tmp_path: Path) -> None:
    run, saved = tmp_path / "run", [0]
    first = start(
        4, "pretrain", "demo", "--out", str(run), *tiny, "--train.save-minutes", "0", fault=record.format(folder=tmp_path / "4")
    )
    first.wait_for_step(run, 17)
    first.kill(signal.SIGKILL)
    assert first.wait() == [-signal.SIGKILL] * 4
    saved.append(load_checkpoint(run)["step"])

    second = start(2, "resume", str(run), fault=record.format(folder=tmp_path / "2"))
    second.wait_for_step(run, 37)
    second.kill(signal.SIGKILL, 1)
    assert second.wait(60)[1] == -signal.SIGKILL
    saved.append(load_checkpoint(run)["step"])

    third = start(1, "resume", str(run), fault=record.format(folder=tmp_path / "1"))
    assert third.wait() == [0], third.errors()
    assert 17 <= saved[1] <= 37 <= saved[2]
    assert losses(run) == pytest.approx(losses(undisturbed), abs=1e-5)
    assert_each_sample_once(tmp_path, [*zip((4, 2, 1), saved, [*saved[1:], STEPS], strict=True)])


def assert_each_sample_once(folder: Path, stages: list[tuple[int, int, int]]) -> None:
    """Of what each process of each stage has seen, what counts is the steps up to the checkpoint that the next began with."""
    counted: Counter[tuple[float, int]] = Counter()
    for ranks, begin, end in stages:
        for path in (folder / str(ranks)).glob("rank*.jsonl"):
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            counted.update((progress, index) for progress, index, *_ in rows[: (end - begin) * STEPS_PER_EPOCH // ranks])
    assert counted == {(epoch / EPOCHS, index): 1 for epoch in range(EPOCHS) for index in range(IMAGES)}


@pytest.mark.parametrize("order", [("ddp", "fsdp"), ("fsdp", "ddp")])
def test_from_one_way_of_spreading_to_the_other(
    order: tuple[str, str], start: Start, tiny: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    processes = start(2, "pretrain", "demo", "--out", str(run), *tiny, "--train.parallel", order[0])
    processes.wait_for_step(run, 20)
    processes.kill(signal.SIGTERM, 1)
    assert processes.wait() == [143, 143]
    done = int(checkpoints(run)[-1].name.removeprefix("step_"))
    assert processes.errors() == [
        f"evomask: stopped by SIGTERM after {done} steps, all saved: `evomask resume {run}` goes on"
    ], "one process was told, all stop, and one says so"

    config = (run / "config.json").read_text()
    assert f'"parallel": "{order[0]}"' in config
    (run / "config.json").write_text(config.replace(f'"parallel": "{order[0]}"', f'"parallel": "{order[1]}"'))
    processes = start(2, "resume", str(run))
    assert processes.wait() == [0, 0], processes.errors()
    assert losses(run) == pytest.approx(losses(undisturbed), abs=1e-5)
