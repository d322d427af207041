"""A run that is killed, interrupted or told to end goes on, and ends in the same weights, bit for bit."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evomask.cli import main
from evomask.engine.checkpoint import checkpoints, load_checkpoint
from evomask.engine.metrics import read_metrics

Begin = Callable[..., Any]


@pytest.fixture
def begin(start: Callable[..., Any]) -> Begin:
    """`begin(*arguments)`: the command in a process of its own, with as many computing threads as this one."""

    def begin_command(*arguments: str) -> Any:
        return start(1, *arguments, fault=f"torch.set_num_threads({torch.get_num_threads()})")

    return begin_command


def timeless(run: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in read_metrics(run)]


def assert_same_end(run: Path, finished_run: Path) -> None:
    """Bit for bit: weights, optimiser, every row of the log, and the pictures of every stage."""
    torch.testing.assert_close(load_checkpoint(run), load_checkpoint(finished_run), rtol=0, atol=0)
    assert timeless(run) == timeless(finished_run)
    exported = Path("export/timm/model.safetensors")
    assert (run / exported).read_bytes() == (finished_run / exported).read_bytes()
    stages = sorted(path.name for path in (finished_run / "snapshots").iterdir())
    assert sorted(path.name for path in (run / "snapshots").iterdir()) == stages
    for name in stages:
        pictures = [load_file(folder / "snapshots" / name) for folder in (run, finished_run)]
        torch.testing.assert_close(*pictures, rtol=0, atol=0)


@pytest.mark.parametrize("save_minutes", ["0", "5"])
def test_killed_at_a_random_step(
    tmp_path: Path, finished_run: Path, tiny_flags: list[str], begin: Begin, save_minutes: str
) -> None:
    step = random.SystemRandom().randrange(1, 24)
    print(f"killed after step {step}")  # shown where the test fails
    run = tmp_path / "run"
    command = begin("pretrain", "demo", "--out", str(run), *tiny_flags, "--train.save-minutes", save_minutes)
    command.wait_for_step(run, step)
    os.killpg(command.processes[0].pid, signal.SIGKILL)
    assert command.wait() == [-signal.SIGKILL]
    # Every step was saved, or none was yet: then it begins again at its beginning.
    saved = load_checkpoint(run)["step"] if save_minutes == "0" else 0
    assert saved in (range(step, 32) if save_minutes == "0" else [0])
    assert len(checkpoints(run)) <= 2

    resumed = begin("resume", str(run))
    assert resumed.wait() == [0], resumed.errors()
    assert resumed.output() == f"{run}\n"
    assert_same_end(run, finished_run)
    assert list(run.rglob("*.unfinished")) == []


@pytest.mark.parametrize(
    ("number", "code", "whom"),
    [(signal.SIGTERM, 143, "process"), (signal.SIGTERM, 143, "group"), (signal.SIGINT, 130, "group")],
)
def test_a_signal_saves_and_says_how_to_go_on(
    tmp_path: Path,
    finished_run: Path,
    tiny_flags: list[str],
    begin: Begin,
    number: signal.Signals,
    code: int,
    whom: str,
) -> None:
    """`kill` tells the process; Ctrl-C, `timeout` and job schedulers tell the whole group, the loader's workers too."""
    run = tmp_path / "run"
    workers = "2" if whom == "group" else "0"
    command = begin("pretrain", "demo", "--out", str(run), *tiny_flags, "--data.workers", workers)
    command.wait_for_step(run, 5)
    (os.killpg if whom == "group" else os.kill)(command.processes[0].pid, number)
    returned = command.wait()
    done = len(read_metrics(run))
    measured, *errors = command.errors()
    assert measured.startswith("evomask: after epoch 0: knn")
    assert errors == [f"evomask: stopped by {number.name} after {done} steps, all saved: `evomask resume {run}` goes on"]
    assert (returned, command.output()) == ([code], "")
    assert load_checkpoint(run)["step"] == done >= 6

    assert main(["resume", str(run)]) == 0
    assert_same_end(run, finished_run)
