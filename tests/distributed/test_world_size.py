"""Whatever the number of processes and however the model is spread over them, a run is the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evomask.engine.checkpoint import checkpoints, load_checkpoint
from evomask.engine.metrics import read_metrics

STEPS, BATCH = 56, 8
Start = Callable[..., Any]


def seen(folder: Path) -> list[list[tuple[Any, ...]]]:
    """Of each step the images with their crops and masks, whoever computed them and in which order."""
    of_rank = [[json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.glob("rank*.jsonl"))]
    share = BATCH // len(of_rank)
    steps = len(of_rank[0]) // share
    return [sorted(tuple(row) for rows in of_rank for row in rows[step * share : (step + 1) * share]) for step in range(steps)]


def assert_same_training(run: Path, undisturbed: Path, among: slice = slice(None)) -> None:
    rows, expected = read_metrics(run), read_metrics(undisturbed)
    assert [row["step"] for row in rows] == list(range(STEPS))
    for name in ("loss", "grad_norm", "depth", "tree_height", "groups", "largest_group"):
        assert [row[name] for row in rows][among] == pytest.approx([row[name] for row in expected][among], abs=1e-5)


def assert_same_state(run: Path, undisturbed: Path) -> None:
    # A weight moves by up to 6e-4 a step. Keys' biases have no gradient but rounding, which Adam brings to any size.
    torch.testing.assert_close(load_checkpoint(run), load_checkpoint(undisturbed), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("ranks", "options"),
    [
        (2, []),
        (4, []),
        (2, ["--train.parallel", "fsdp"]),
        (2, ["--train.parallel", "fsdp", "--train.checkpoint-activations", "True"]),
    ],
    ids=["2 ranks", "4 ranks", "2 ranks, sharded", "2 ranks, sharded and checkpointed"],
)
def test_a_run_is_the_same(
    ranks: int, options: list[str], start: Start, tiny: list[str], record: str, undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    processes = start(
        ranks, "pretrain", "demo", "--out", str(run), *tiny, *options, fault=record.format(folder=tmp_path / "seen")
    )
    assert processes.wait() == [0] * ranks, processes.errors()
    assert processes.errors() == []
    assert processes.output() == f"{run}\n", "only the first process has something to say"
    found, expected = seen(tmp_path / "seen"), seen(undisturbed.parent / "seen")
    assert len(found) == STEPS
    assert found == expected, "the same samples, crops and masks at every step"
    assert_same_training(run, undisturbed)
    assert_same_state(run, undisturbed)
    shards = list(checkpoints(run)[-1].glob("*.safetensors"))
    assert len(shards) == ranks, "every process writes its share"
    for name in ("report.html", "export/timm/model.safetensors", "export/transformers/model.safetensors", "snapshots"):
        assert (run / name).exists()
    assert {path.name for path in (run / "snapshots").iterdir()} == {
        path.name for path in (undisturbed / "snapshots").iterdir()
    }


COMPILE_WITHOUT_GENERATING_CODE = """
from evomask.models.mae import MAE
plain = MAE.compile
MAE.compile = lambda self, **options: plain(self, backend="aot_eager", fullgraph=True, **options)
"""


def test_compiled_blocks_are_spread_like_others(start: Start, tiny: list[str], tmp_path: Path) -> None:
    """What cannot be traced is an error."""
    losses = []
    for options in ([], ["--train.parallel", "ddp"], ["--train.parallel", "fsdp"]):
        run = tmp_path / f"run{len(losses)}"
        processes = start(
            *(2 if options else 1, "pretrain", "demo", "--out", str(run), *tiny, "--train.epochs", "1"),
            *(*options, "--train.compile", "on" if options else "off"),
            fault=COMPILE_WITHOUT_GENERATING_CODE,
            pictures=False,
        )
        assert set(processes.wait()) == {0}, processes.errors()
        losses.append([row["loss"] for row in read_metrics(run)])
    plain, *compiled = losses
    assert len(plain) == STEPS / 7
    for each in compiled:
        assert each == pytest.approx(plain, abs=1e-5)
