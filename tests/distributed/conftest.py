"""Several processes of the real command, on this machine, by gloo: a run so small that it is over in seconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., Any]
STEPS = 56
"""7 epochs of 64 scenes in batches of 8."""

_HOST = "--host.encoder.image-size 32 32 --host.encoder.width 32 --host.encoder.depth 2 --host.encoder.heads 2"
_HOST += " --host.encoder.drop-path 0.1 --host.decoder-width 16 --host.decoder-depth 2 --host.decoder-heads 2"
_TRAIN = "--data.scenes 64 --data.workers 0 --optim.base-lr 0.02 --train.epochs 7 --train.batch-size 8"
_TRAIN += " --train.micro-batches 4 --train.device cpu --train.log-every 1 --monitor.every 0"
TINY = [*_HOST.split(), *_TRAIN.split()]


@pytest.fixture(scope="session")
def tiny() -> list[str]:
    """The small run as the command line is told of it."""
    return TINY


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, start: Start) -> Path:
    """The run that one process makes, and nothing interrupts."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    processes = start(1, "pretrain", "demo", "--out", str(run), *TINY, fault=RECORD.format(folder=run.parent / "seen"))
    assert processes.wait() == [0], processes.errors()
    return run


RECORD = """
import json, pathlib
from evomask.engine.pretrain import PretrainStep
from evomask.masking import EvolvedMasking
import hashlib
folder = pathlib.Path("{folder}"); folder.mkdir(exist_ok=True, parents=True)
seen = (folder / f"rank{{rank}}.jsonl").open("a", buffering=1)
plain_mask, plain_step = EvolvedMasking.__call__, PretrainStep.__call__
def mask(self, noise, **how):
    found = plain_mask(self, noise, **how)
    masks.append(found.masked)
    return found
def step(self, batch, progress):
    images, noise, index = batch
    masks.clear()
    result = plain_step(self, batch, progress)
    for image, hidden, number in zip(images, masks[0], index.tolist(), strict=True):
        digest = [hashlib.sha1(each.contiguous().numpy().tobytes()).hexdigest()[:12] for each in (image, hidden)]
        print(json.dumps([progress, number, *digest]), file=seen)
    return result
masks = []
EvolvedMasking.__call__, PretrainStep.__call__ = mask, step
"""
"""Leaves behind what each process sees: of every image the progress of training, its number, its crop and its mask."""


@pytest.fixture(scope="session")
def record() -> str:
    """A fault that is none: see RECORD."""
    return RECORD
