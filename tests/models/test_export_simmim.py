"""What a trained SimMIM leaves is loaded by timm and transformers, with the same features. Its head is shown in parity/."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import Tensor

from evomask.models.encoders import Encoder, load_encoder
from evomask.models.export import export_timm, export_transformers
from evomask.models.simmim import SimMIMConfig, SwinSimMIMConfig
from evomask.models.swin import SwinConfig
from evomask.models.vit import ViTConfig

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
VIT = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=24, depth=2, heads=2)
SWIN: dict[str, Any] = {"image_size": (64, 64), "width": 16, "depths": (2, 2, 1), "heads": (2, 2, 4), "window": 4}
CONFIGS: dict[str, Any] = {
    "ViT": SimMIMConfig(encoder=VIT),
    "Swin": SwinSimMIMConfig(encoder=SwinConfig(**SWIN)),
    "Swinv2": SwinSimMIMConfig(encoder=SwinConfig(name="swinv2_tiny_window8_256", **SWIN)),
}


def build(config: Any) -> Any:
    """With a value of its own for each parameter, so that one that is lost or misplaced shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        host = config.build().eval()
        for parameter in host.parameters():
            torch.nn.init.normal_(parameter, mean=0.1, std=0.2)
    return host.requires_grad_(False)


def photos(host: Any) -> Tensor:
    return torch.randn(2, 3, *host.encoder.patch_embed.img_size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("kind", CONFIGS)
def test_timm_loads_the_same_encoder(tmp_path: Path, kind: str) -> None:
    config = CONFIGS[kind]
    host = build(config)
    export_timm(Encoder.of(host.encoder, MEAN, STD, "mine"), tmp_path / "timm")
    loaded: Any = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True).eval()
    assert loaded.forward_features(photos(host)).equal(host.encoder.forward_features(photos(host)))
    data = resolve_model_data_config(loaded)
    assert (data["input_size"][1:], tuple(data["mean"]), tuple(data["std"])) == (host.encoder.patch_embed.img_size, MEAN, STD)

    classifier: Any = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True, num_classes=5)
    assert classifier(photos(host)).shape == (2, 5)
    assert classifier.norm.weight.equal(host.encoder.norm.weight)
    evaluated = load_encoder(str(tmp_path / "timm"))
    assert evaluated.tap.grid == ((4, 4) if kind == "ViT" else (16, 16))
    expected = host.encoder.forward_features(photos(host)).flatten(1, -2)[:, 1 if kind == "ViT" else 0 :].mean(dim=1)
    torch.testing.assert_close(evaluated.features(photos(host)), expected)


@pytest.mark.parametrize("kind", CONFIGS)
def test_transformers_loads_the_same_encoder(tmp_path: Path, kind: str) -> None:
    transformers: Any = pytest.importorskip("transformers")
    host = build(CONFIGS[kind])
    export_transformers(host, tmp_path / "export", MEAN, STD)
    model = getattr(transformers, f"{kind}Model")
    loaded, report = model.from_pretrained(tmp_path / "export", add_pooling_layer=False, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    expected = host.encoder.forward_features(photos(host))
    expected = expected if kind == "ViT" else expected.flatten(1, 2)
    torch.testing.assert_close(loaded.eval()(photos(host)).last_hidden_state, expected, atol=1e-4, rtol=1e-4)
    assert type(transformers.AutoModel.from_pretrained(tmp_path / "export")) is model
    processor = json.loads((tmp_path / "export" / "preprocessor_config.json").read_text())
    assert processor["size"] == dict(zip(("height", "width"), host.encoder.patch_embed.img_size, strict=True))


@pytest.mark.parametrize("kind", ["ViT", "Swin"])
def test_the_folder_of_transformers_is_an_encoder_here(tmp_path: Path, kind: str) -> None:
    host = build(CONFIGS[kind])
    export_transformers(host, tmp_path / "export", MEAN, STD)
    encoder = load_encoder(str(tmp_path / "export"))
    features = host.encoder.forward_features(photos(host))
    expected = features[:, 1:].mean(dim=1) if kind == "ViT" else features.flatten(1, 2).mean(dim=1)
    torch.testing.assert_close(encoder.features(photos(host)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (64, 128)}, "Swin cannot express images or windows that are not square"),
        ({"image_size": (32, 32)}, "windows of several sizes"),  # 8, 4 and 2 tokens a side
        ({"image_size": (96, 96), "window": 5}, "windows that do not divide the grid of a stage"),
        ({"image_size": (48, 48), "window": 8}, "windows of several sizes"),
    ],
)
def test_what_transformers_has_no_words_for(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    host = SwinSimMIMConfig(encoder=SwinConfig(**(SWIN | changes))).build()
    with pytest.raises(ValueError, match=rf"{message}.*: export the encoder for timm instead \(--to timm\)"):
        export_transformers(host, tmp_path / "export", MEAN, STD)
    assert not (tmp_path / "export").exists()
