"""Every host, every kind of mask, and the training of a tokenizer, in two processes as in one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evomask.engine.metrics import read_metrics
from evomask.models.discrete_vae import DiscreteVAEConfig
from evomask.models.hosts import HOSTS
from evomask.models.tokenizers import save_tokenizer

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
    "beit": ["vit_tiny_beit", *VIT],
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
        processes = start(ranks, "pretrain", *arguments, *TRAIN, "--out", str(out), pictures=False)
        assert processes.wait() == [0] * ranks, processes.errors()
        return [row["loss"] for row in read_metrics(out)]

    return run


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_tokenizer(DiscreteVAEConfig(levels=(5, 4), stride=4, width=8).build(), folder)
    return ["--host.tokenizer", str(folder)]


@pytest.mark.parametrize("kind", HOSTS)
def test_every_host(kind: str, losses_of: Callable[..., list[float]], tokenizer: list[str]) -> None:
    command = [*RUNS[kind], *(tokenizer if kind == "beit" else ())]
    expected = losses_of(1, *command)
    assert len(expected) == 8
    for parallel in ("ddp", "fsdp"):
        assert losses_of(2, *command, "--train.parallel", parallel) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("masks", "close"), [("random", 4e-3), ("evolved", 0.1)])  # rounding may turn a tree round
@pytest.mark.parametrize("kind", HOSTS)
def test_every_host_sharded_in_bfloat16(
    kind: str, masks: str, close: float, losses_of: Callable[..., list[float]], tokenizer: list[str]
) -> None:
    """What `auto` takes on a GPU. Shards are gathered in bfloat16, and norms are computed in it, too: all but the same."""
    options = ["--masking.strategy", masks, "--train.precision", "bfloat16"]
    command = [*RUNS[kind], *(tokenizer if kind == "beit" else ()), *options]
    expected = losses_of(1, *command)
    assert losses_of(2, *command, "--train.parallel", "fsdp") == pytest.approx(expected, rel=close)


def test_a_tokenizer(start: Start, tmp_path: Path) -> None:
    flags = "--data.scenes 32 --data.workers 0 --image-size 32 32 --model.levels 5 4 --model.width 8 --measured 8"
    flags += " --train.epochs 2 --train.batch-size 8 --train.micro-batches 2 --train.device cpu --train.log-every 1"
    losses = []
    for ranks in (1, 2):
        out = tmp_path / str(ranks)
        processes = start(ranks, "train-tokenizer", *flags.split(), "--least-perplexity", "1", "--out", str(out))
        assert processes.wait() == [0] * ranks, processes.errors()
        assert processes.output() == f"{out}\n"
        losses.append([row["loss"] for row in read_metrics(out)])
        assert (out / "tokenizer" / "model.safetensors").exists()
    assert len(losses[0]) == 8 and losses[1] == pytest.approx(losses[0], abs=1e-6)


@pytest.mark.parametrize("masks", MASKS)
def test_every_kind_of_mask(masks: str, losses_of: Callable[..., list[float]]) -> None:
    arguments = [*RUNS["mae"], *MASKS[masks]]
    assert losses_of(2, *arguments) == pytest.approx(losses_of(1, *arguments), abs=1e-5)
