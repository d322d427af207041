"""A whole run of each host: it ends in exports, a report and an encoder to evaluate, and goes on bit for bit."""

import os
import signal
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import Stopped
from evomask.engine.metrics import read_metrics
from evomask.engine.pretrain import PretrainConfig, PretrainStep
from evomask.engine.run import read_run
from evomask.figures.show import show_reconstruction
from evomask.models.beit import BEiTConfig
from evomask.models.beit_encoder import BEiTEncoderConfig
from evomask.models.discrete_vae import DiscreteVAEConfig
from evomask.models.encoders import load_encoder
from evomask.models.hosts import pinned
from evomask.models.simmim import SimMIMConfig, SwinSimMIMConfig
from evomask.models.swin import SwinConfig
from evomask.models.tokenizers import save_tokenizer
from evomask.models.vit import ViTConfig
from evomask.recipes import RECIPES
from evomask.recipes.evaluation import encoder_of
from evomask.recipes.launch import load_host, pretrain, resume

DEMO = RECIPES["demo"]()
VIT = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=16, depth=2, heads=2, drop_path=0.1)
SWIN = SwinConfig(image_size=(32, 32), width=8, depths=(2, 2), heads=(1, 2), window=4, drop_path=0.1)
BEIT = BEiTEncoderConfig(image_size=(32, 32), patch_size=8, width=16, depth=2, heads=2, drop_path=0.1)
HOSTS: dict[str, Any] = {
    "simmim": SimMIMConfig(encoder=VIT),
    "swin_simmim": SwinSimMIMConfig(encoder=SWIN, cell=8),
    "beit": BEiTConfig(encoder=BEIT),
}


@cache
def tokenizer() -> str:
    folder = Path(mkdtemp()) / "tokenizer"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save_tokenizer(DiscreteVAEConfig(levels=(5, 4), stride=4, width=8).build(), folder)
    return str(folder)


def host_config(kind: str) -> Any:
    return replace(HOSTS[kind], tokenizer=tokenizer()) if kind == "beit" else HOSTS[kind]


def config_of(kind: str) -> PretrainConfig:
    return replace(
        DEMO,
        host=pinned(host_config(kind)),
        data=replace(DEMO.data, scenes=32, workers=0),
        train=replace(DEMO.train, epochs=3, batch_size=8, device="cpu", log_every=1),
        monitor=replace(DEMO.monitor, images=16),
    )


@cache
def run_of(kind: str) -> Path:
    return pretrain(config_of(kind), out=Path(mkdtemp()) / "run")


@pytest.mark.parametrize("kind", HOSTS)
def test_a_run_leaves_everything(kind: str) -> None:
    run = run_of(kind)
    assert read_run(run, PretrainConfig) == config_of(kind)
    rows = read_metrics(run)
    assert len(rows) == 12 and rows[-1]["tree_height"] > 1 and rows[-1]["depth"] > rows[0]["depth"] == 1
    assert {path.name for path in (run / "export").iterdir()} == {"timm", "transformers"}
    assert load_file(run / "snapshots" / "epoch_0003.safetensors")["reconstruction"].shape == (6, 3, 32, 32)
    page = (run / "report.html").read_text()
    assert "Masks and reconstructions through training" in page and "32 × 32 px" in page


@pytest.mark.parametrize("kind", HOSTS)
def test_a_run_is_an_encoder_trained_and_untrained(kind: str) -> None:
    run = run_of(kind)
    saved = load_checkpoint(run)["model"]
    for spec in (str(run), str(run / "checkpoints" / "step_00000012")):
        state = load_encoder(spec).model.state_dict()
        assert all(tensor.equal(saved[f"encoder.{name}"]) for name, tensor in state.items())
    untrained, trained = encoder_of(f"untrained:{run}"), load_encoder(str(run))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(untrained.features(images), trained.features(images))
    assert trained.poolings == (("mean",) if kind == "swin_simmim" else ("token", "mean"))


@pytest.mark.parametrize("kind", HOSTS)
def test_its_attention_is_looked_at_on_the_grid_of_its_masks(kind: str) -> None:
    run = run_of(kind)
    host, _ = load_host(run)
    for encoder in (
        load_encoder(str(run)),
        load_encoder(str(run / "checkpoints" / "step_00000012")),
        encoder_of(f"untrained:{run}"),
    ):
        assert encoder.tap.grid == host.grid == (4, 4)


@pytest.mark.parametrize("kind", HOSTS)
def test_its_reconstructions_are_shown(kind: str) -> None:
    host, config = load_host(run_of(kind))
    originals = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    images = originals / 255
    assert len(show_reconstruction(host, images, originals, config.data.mean, config.data.std).axes) == 5


@pytest.mark.parametrize("kind", HOSTS)
def test_a_run_that_was_stopped_goes_on_bit_for_bit(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, calls, plain = tmp_path / "run", [], PretrainStep.__call__

    def step_and_signal(self: PretrainStep, batch: Any, progress: float) -> Any:
        calls.append(progress)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch, progress)

    with monkeypatch.context() as patch:
        patch.setattr(PretrainStep, "__call__", step_and_signal)
        with pytest.raises(Stopped, match="after 6 steps"):
            pretrain(config_of(kind), out=run)
    torch.rand(5)
    resume(run)
    torch.testing.assert_close(load_checkpoint(run)["model"], load_checkpoint(run_of(kind))["model"], rtol=0, atol=0)
