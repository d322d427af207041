"""Every host, and every kind of mask, in two processes as in one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomask.engine.metrics import read_metrics
from evomask.models.hosts import HOSTS

Start = Callable[..., Any]

TRAIN = "--data.scenes 32 --data.workers 0 --train.epochs 2 --train.batch-size 8 --train.micro-batches 2 --train.device cpu"
TRAIN = f"{TRAIN} --train.log-every 1 --monitor.every 0 --optim.base-lr 0.02 --optim.warmup-epochs 1".split()
VIT = "--host.encoder.image-size 32 32 --host.encoder.patch-size 8 --host.encoder.width 32 --host.encoder.depth 2"
VIT = f"{VIT} --host.encoder.heads 2".split()
DECODER = ["--host.decoder-width", "16", "--host.decoder-depth", "1", "--host.decoder-heads", "2"]
SWIN = "--host.encoder.image-size 32 32 --host.encoder.patch-size 2 --host.encoder.width 16 --host.encoder.depths 2 1"
SWIN = f"{SWIN} --host.encoder.heads 2 2 --host.encoder.window 4".split()
RUNS = {
    "mae": ["demo", *VIT, *DECODER],
    "simmim": ["vit_tiny_simmim", *VIT],
    "swin_simmim": ["swin_tiny_simmim", *SWIN],
}
MASKS = {
    "random": ["--masking.strategy", "random"],
    "block": ["--masking.strategy", "block", "--masking.min-block", "2"],
    "several from a tree": ["--masking.masks-per-tree", "2"],
}


@pytest.fixture
def losses_of(start: Start, tmp_path: Path) -> Callable[..., list[float]]:
    def run(ranks: int, *arguments: str) -> list[float]:
        out = tmp_path / f"{ranks} {arguments[-1]}"
        processes = start(ranks, "pretrain", *arguments, *TRAIN, "--out", str(out))
        assert processes.wait() == [0] * ranks, processes.errors()
        return [row["loss"] for row in read_metrics(out)]

    return run


@pytest.mark.parametrize("kind", HOSTS)
def test_every_host(kind: str, losses_of: Callable[..., list[float]]) -> None:
    expected = losses_of(1, *RUNS[kind])
    assert len(expected) == 8
    for parallel in ("ddp", "fsdp"):
        assert losses_of(2, *RUNS[kind], "--train.parallel", parallel) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("masks", MASKS)
def test_every_kind_of_mask(masks: str, losses_of: Callable[..., list[float]]) -> None:
    arguments = [*RUNS["mae"], *MASKS[masks]]
    assert losses_of(2, *arguments) == pytest.approx(losses_of(1, *arguments), abs=1e-5)
