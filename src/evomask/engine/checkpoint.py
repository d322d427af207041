"""Checkpoints of a run: whole or not there at all, the last few kept, read without running code from the file."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

_NAME = re.compile(r"step_(\d{8,})")


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def save_checkpoint(run: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write RUN/checkpoints/step_00000100 after 100 steps, and drop all but the newest `keep`.

    It is written under another name, flushed to the disk and renamed, so that a run killed at any moment leaves either a
    whole checkpoint or none.
    """
    folder = run / "checkpoints"
    folder.mkdir(exist_ok=True)
    target, unfinished = folder / f"step_{step:08d}", folder / f"step_{step:08d}.unfinished"
    for leftover in folder.glob("*.unfinished"):  # of a process that was killed while it wrote
        shutil.rmtree(leftover)
    unfinished.mkdir()
    with open(unfinished / "state.pt", "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():  # saved at this very step before, by a run that was then stopped and resumed
        shutil.rmtree(target)
    unfinished.rename(target)
    for old in checkpoints(run)[:-keep]:
        shutil.rmtree(old)
    return target


def load_checkpoint(run: Path) -> dict[str, Any]:
    """The newest state of a run, on the CPU.

    Raises:
        ValueError: the run has no checkpoint, or its newest cannot be read.
    """
    found = checkpoints(run)
    if not found:
        raise ValueError(f"{run} has no checkpoint yet: `evomask resume {run}` goes on with it")
    try:
        return torch.load(found[-1] / "state.pt", map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{found[-1]} cannot be read ({reason}): delete it, and the one before it is used") from error
