"""What a trained BEiT leaves is loaded by timm, and here, with the same features. For transformers see parity/."""

import json
from pathlib import Path
from typing import Any, Literal

import pytest
import timm
import torch
from torch import Tensor

from evomask.models.beit import BEiT, BEiTConfig
from evomask.models.beit_encoder import BEiTEncoderConfig
from evomask.models.encoders import Encoder, load_encoder
from evomask.models.export import export_timm, export_transformers

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
BIASES: list[Literal["shared", "per_block"]] = ["shared", "per_block"]
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def build(**options: Any) -> tuple[BEiT, BEiTEncoderConfig]:
    """With a value of its own for each parameter, so that one that is lost or misplaced shows."""
    config = BEiTEncoderConfig(**{"image_size": (32, 32), "patch_size": 8, "width": 24, "depth": 2, "heads": 2} | options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        host = BEiTConfig(encoder=config, vocabulary=20).build().eval()
        for parameter in host.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.2)
    return host.requires_grad_(False), config


def features_of(host: BEiT) -> Tensor:
    return host.encoder.forward_features(IMAGES)


@pytest.mark.parametrize("bias", BIASES)
def test_timm_loads_the_same_encoder(tmp_path: Path, bias: str) -> None:
    host, _ = build(position_bias=bias)
    export_timm(Encoder.of(host.encoder, MEAN, STD, "mine"), tmp_path / "timm")
    loaded: Any = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    state = host.encoder.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in loaded.state_dict().items())
    torch.testing.assert_close(loaded.forward_features(IMAGES), features_of(host), atol=1e-5, rtol=1e-5)
    assert (loaded.rel_pos_bias is not None) == (bias == "shared")
    classifier: Any = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True, num_classes=5)
    assert classifier(IMAGES).shape == (2, 5) and classifier.norm.weight.equal(host.encoder.norm.weight)


@pytest.mark.parametrize("library", ["timm", "transformers"])
@pytest.mark.parametrize("bias", BIASES)
def test_an_export_is_an_encoder_here(tmp_path: Path, bias: str, library: str) -> None:
    host, _ = build(position_bias=bias)
    if library == "timm":
        export_timm(Encoder.of(host.encoder, MEAN, STD, "mine"), tmp_path / "export")
    else:
        export_transformers(host, tmp_path / "export", MEAN, STD)
    encoder = load_encoder(str(tmp_path / "export"))
    assert (encoder.mean, encoder.std, encoder.tap.grid) == (MEAN, STD, (4, 4))
    torch.testing.assert_close(encoder.features(IMAGES, "token"), features_of(host)[:, 0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.features(IMAGES), features_of(host)[:, 1:].mean(dim=1), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_in_the_format_of_transformers_says_what_the_model_is(tmp_path: Path) -> None:
    host, _ = build()
    export_transformers(host, tmp_path / "export", MEAN, STD)
    config = json.loads((tmp_path / "export" / "config.json").read_text())
    assert (config["model_type"], config["vocab_size"], config["layer_norm_eps"]) == ("beit", 20, 1e-6)
    assert config["use_shared_relative_position_bias"] and not config["use_relative_position_bias"]


def test_what_transformers_has_no_words_for(tmp_path: Path) -> None:
    host, _ = build(image_size=(32, 48))
    with pytest.raises(ValueError, match=r"Beit cannot express images or patches that are not square: export .*--to timm"):
        export_transformers(host, tmp_path / "export", MEAN, STD)
    assert not (tmp_path / "export").exists()
