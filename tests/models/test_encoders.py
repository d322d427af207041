"""Encoders from what a user names."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from evomask.models.encoders import Encoder, load_encoder
from evomask.models.export import export_timm
from evomask.models.vit import ViTConfig, build_vit

MEAN, STD = (0.4, 0.5), (0.1, 0.2)
CONFIG = ViTConfig(
    name="vit_tiny_patch16_224", image_size=(24, 40), patch_size=8, in_chans=2, width=48, depth=2, heads=3, registers=2
)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return build_vit(CONFIG)


@pytest.fixture
def images():
    return torch.randn(3, 2, 24, 40, generator=torch.Generator().manual_seed(0))


def make_run(run: Path) -> None:
    """What is there of a run from its first step on."""
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"command": "evomask pretrain x", "config": {"recipe": "x"}}))


def test_encoder_of_a_model(vit, images):
    encoder = Encoder.of(vit.train(), [0.4, 0.5], [0.1, 0.2], "mine")
    assert encoder.model is vit
    assert not vit.training
    assert (encoder.mean, encoder.std, encoder.name) == (MEAN, STD, "mine")
    assert (encoder.image_size, encoder.in_chans) == ((24, 40), 2)

    tokens = encoder.patch_tokens(images)
    assert tokens.shape == (3, 15, 48)
    # After the last norm, whose weight is 1 and bias 0 at first, every token has mean 0 and variance 1.
    torch.testing.assert_close(tokens.mean(dim=-1), torch.zeros(3, 15), atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.var(dim=-1, correction=0), torch.ones(3, 15), atol=1e-3, rtol=0)
    by_hand = torch.stack([vit.forward_features(images)[:, 3 + patch] for patch in range(15)]).mean(dim=0)
    torch.testing.assert_close(encoder.features(images), by_hand, atol=1e-6, rtol=0)


def test_final_norm_is_found_where_timm_pools_before_it(images):
    options: dict[str, Any] = CONFIG.timm_arguments() | {"global_pool": "avg"}
    vit = timm.create_model(CONFIG.name, **options)
    assert isinstance(vit.norm, nn.Identity)
    tokens = Encoder.of(vit, MEAN, STD, "pooled").patch_tokens(images)
    torch.testing.assert_close(tokens.var(dim=-1, correction=0), torch.ones(3, 15), atol=1e-3, rtol=0)


def test_other_architectures_are_refused():
    with pytest.raises(ValueError, match="mine is a Linear: an encoder must be a timm VisionTransformer"):
        Encoder.of(nn.Linear(2, 2), MEAN, STD, "mine")


@pytest.mark.parametrize("form", ["{folder}", "timm:local-dir:{folder}", "run"])
def test_exported_weights_are_loaded(tmp_path, vit, images, form):
    make_run(tmp_path / "run")
    folder = tmp_path / "run" / "export" / "timm"
    export_timm(vit, CONFIG, folder, MEAN, STD)
    spec = str(tmp_path / "run") if form == "run" else form.format(folder=folder)
    encoder = load_encoder(spec)
    assert (encoder.mean, encoder.std, encoder.name) == (MEAN, STD, spec)
    assert (encoder.image_size, encoder.in_chans) == ((24, 40), 2)
    assert not encoder.model.training
    with torch.no_grad():
        assert torch.equal(encoder.model(images), vit.eval()(images))


def test_run_without_weights_says_what_to_do(tmp_path):
    make_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run has no exported weights yet: `evomask export .*run --to timm` writes them"):
        load_encoder(str(tmp_path / "run"))


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"model_type": "vit"}'])
def test_anything_else_is_answered_with_the_forms(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=r"no encoder '.*': name a run's folder, a folder that .* or timm:NAME"):
        load_encoder(str(tmp_path))


def test_names_unknown_to_timm(tmp_path):
    with pytest.raises(ValueError, match=r"timm:vit_nano cannot be loaded by timm: Unknown model \(vit_nano\)"):
        load_encoder("timm:vit_nano")
    with pytest.raises(ValueError, match="cannot be loaded by timm: Config file not found"):
        load_encoder(f"timm:local-dir:{tmp_path}")


def test_damaged_weights_are_one_clear_line(tmp_path, vit):
    export_timm(vit, CONFIG, tmp_path / "export", MEAN, STD)
    weights = tmp_path / "export" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="export cannot be loaded by timm: ") as caught:
        load_encoder(str(tmp_path / "export"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "line"), [(ConnectionError("no network\nand a long story"), "no network"), (OSError(), "OSError")]
)
def test_network_errors_are_one_clear_line(monkeypatch, error, line):
    def offline(*_, **__):
        raise error

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=f"^timm:vit_tiny_patch16_224 cannot be loaded by timm: {line}$"):
        load_encoder("timm:vit_tiny_patch16_224")


def test_pretrained_weights_of_timm_by_name(monkeypatch):
    vit = build_vit(ViTConfig(name="vit_tiny_patch16_224", depth=1))
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda *name, **options: asked.append((name, options)) or vit)
    encoder = load_encoder("timm:vit_tiny_patch16_224.augreg_in21k")
    assert asked == [(("vit_tiny_patch16_224.augreg_in21k",), {"pretrained": True, "num_classes": 0})]
    assert encoder.model is vit
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)  # as timm says that these weights were trained
