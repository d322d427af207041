"""A pretraining run so small that a command takes little longer than its imports, and one such run for all tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TINY = {
    "host.encoder.image_size": (32, 32),
    "host.encoder.width": 32,
    "host.encoder.depth": 2,
    "host.encoder.heads": 2,
    "host.encoder.drop_path": 0.1,
    "host.decoder_width": 16,
    "host.decoder_depth": 1,
    "host.decoder_heads": 2,
    "data.scenes": 64,
    "data.workers": 0,
    "optim.base_lr": 0.02,
    "train.epochs": 4,
    "train.batch_size": 8,
    "train.device": "cpu",
    "train.log_every": 1,
}

Command = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def tiny_flags() -> list[str]:
    """The small run as the command line is told of it."""
    flags: list[str] = []
    for leaf, value in TINY.items():
        values = value if isinstance(value, tuple) else (value,)
        flags += [f"--{leaf.replace('_', '-')}", *map(str, values)]
    return flags


@pytest.fixture(scope="session")
def tiny_overrides() -> dict[str, object]:
    """The small run as `evomask.pretrain` is told of it."""
    return {leaf.replace(".", "__"): value for leaf, value in TINY.items()}


@pytest.fixture(scope="session")
def evomask_command() -> Command:
    """Start the real command in a process group of its own, as a terminal does."""

    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "evomask.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != "EVOMASK_TRACEBACK"},
        )

    return start


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, tiny_flags: list[str], evomask_command: Command) -> Path:
    """The small run, made by the real command and interrupted by nothing."""
    run = tmp_path_factory.mktemp("finished") / "run"
    process = evomask_command("pretrain", "demo", "--out", str(run), *tiny_flags)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert output == f"{run}\n", "stdout holds the result alone"
    return run
