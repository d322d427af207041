"""Exports as timm and transformers load them, and what an export does to the folder it is written to."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.data.config import resolve_model_data_config

from evomask.models import export
from evomask.models.encoders import Encoder
from evomask.models.export import export_timm, export_transformers
from evomask.models.mae import MAE, MAEConfig
from evomask.models.vit import ViTConfig, build_vit, fix_sincos_positions

MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)


def vit_config(**options: Any) -> ViTConfig:
    size = {"image_size": (32, 32), "patch_size": 8, "width": 48, "depth": 2, "heads": 3}
    given: dict[str, Any] = {"name": "vit_tiny_patch16_224"} | size | options
    return ViTConfig(**given)


def build_host(**options: Any) -> Any:
    config = MAEConfig(encoder=vit_config(**options), decoder_width=32, decoder_depth=1, decoder_heads=2)
    torch.manual_seed(0)
    return config.build().eval()


def by_timm(**options: Any) -> Any:
    given: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 8,
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 3,
        "num_classes": 0,
    } | options
    encoder: Any = timm.create_model("vit_tiny_patch16_224", **given)
    return MAE(encoder, decoder_width=32, decoder_depth=1, decoder_heads=2).eval()


def load_timm(folder: Path, **options: Any) -> Any:
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **options).eval()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_size": (24, 40)},
        {"image_size": (56, 28), "patch_size": 14},
        {"in_chans": 1},
        {"in_chans": 4},
        {"class_token": False},
        {"registers": 3},
        {"class_token": False, "registers": 2},
        {"qk_norm": True},
        {"drop_path": 0.5},
        {"name": "vit_small_patch14_reg4_dinov2", "registers": 4},
        {"name": "vit_base_patch16_clip_224"},
        {"name": "vit_small_patch16_224", "width": None, "heads": None, "depth": 1},
    ],
    ids=str,
)
def test_timm_loads_the_same_encoder(tmp_path, options):
    config = vit_config(**options)
    encoder = build_vit(config).eval()
    fix_sincos_positions(encoder)
    mean, std = (0.4,) * config.in_chans, (0.2,) * config.in_chans
    export_timm(Encoder.of(encoder, mean, std, "mine"), tmp_path / "timm")

    loaded = load_timm(tmp_path / "timm")
    images = torch.randn(2, config.in_chans, *config.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded.forward_features(images), encoder.forward_features(images))
        assert torch.equal(loaded(images), encoder(images))
    assert tuple(loaded.pretrained_cfg["mean"]) == mean
    assert tuple(loaded.pretrained_cfg["std"]) == std


def test_timm_export_takes_a_new_head_and_claims_nothing_of_timms_own_weights(tmp_path):
    host = build_host()
    export_timm(Encoder.of(host.encoder, MEAN, STD, "mine"), tmp_path / "timm")
    classifier = load_timm(tmp_path / "timm", num_classes=5)
    assert classifier(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert torch.equal(classifier.blocks[1].mlp.fc2.weight, host.encoder.blocks[1].mlp.fc2.weight)

    data = resolve_model_data_config(classifier)
    assert (tuple(data["input_size"]), tuple(data["mean"]), tuple(data["std"])) == ((3, 32, 32), MEAN, STD)
    assert (data["interpolation"], data["crop_pct"]) == ("bicubic", 1.0)
    assert classifier.pretrained_cfg["tag"] == "evomask"
    assert "license" not in classifier.pretrained_cfg


def test_transformers_is_not_needed_to_write_its_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it now fails
    export_transformers(build_host(), tmp_path / "transformers", MEAN, STD, mask_ratio=0.6)
    written = sorted(path.name for path in (tmp_path / "transformers").iterdir())
    assert written == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert json.loads((tmp_path / "transformers/config.json").read_text())["mask_ratio"] == 0.6


@pytest.mark.parametrize("options", [{}, {"in_chans": 1}, {"no_embed_class": True}, {"mlp_ratio": 2}], ids=str)
def test_transformers_loads_the_same_encoder(tmp_path, options):
    transformers = pytest.importorskip("transformers")
    host = by_timm(**options)
    channels = host.encoder.in_chans
    folder = tmp_path / "transformers"
    export_transformers(host, folder, MEAN[:channels], STD[:channels])
    images = torch.randn(2, channels, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = host.encoder.forward_features(images)
        vit = transformers.ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
        torch.testing.assert_close(vit(images).last_hidden_state, expected, atol=1e-5, rtol=0)

        mae = transformers.AutoModel.from_pretrained(folder, mask_ratio=0.0).eval()
        assert type(mae).__name__ == "ViTMAEModel"
        in_order = torch.arange(16).expand(2, -1) / 16
        torch.testing.assert_close(mae(images, noise=in_order).last_hidden_state, expected, atol=1e-5, rtol=0)


def test_transformers_prepares_images_as_in_training(tmp_path):
    transformers = pytest.importorskip("transformers")
    export_transformers(build_host(), tmp_path / "transformers", MEAN, STD)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "transformers")
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    prepared = processor(images=image, return_tensors="pt")["pixel_values"][0]
    expected = (image / 255 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(prepared, expected, atol=1e-5, rtol=0)
    assert processor(images=image.repeat(1, 2, 3), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("host", "what"),
    [
        (lambda: build_host(class_token=False), "a ViT without class token"),
        (lambda: build_host(registers=2), "register tokens"),
        (lambda: build_host(qk_norm=True), "normalised queries and keys"),
        (lambda: build_host(image_size=(24, 40)), "images or patches that are not square"),
        (lambda: build_host(name="vit_base_patch16_clip_224"), "a norm before the first block"),
        (lambda: by_timm(init_values=0.1), "layer scale"),
        (lambda: by_timm(scale_attn_norm=True), "a norm inside attention"),
        (lambda: by_timm(scale_mlp_norm=True), "an MLP other than two layers with GELU"),
        (lambda: by_timm(act_layer="gelu_tanh"), "an MLP other than two layers with GELU"),
        (lambda: by_timm(norm_layer="rmsnorm"), "norms other than LayerNorm with eps 1e-6"),
        (lambda: by_timm(global_pool="avg"), "norms other than LayerNorm with eps 1e-6"),
        (lambda: by_timm(qkv_bias=False), "layers without bias"),
        (lambda: by_timm(img_size=(32, 64), patch_size=(8, 16)), "images or patches that are not square"),
    ],
)
def test_what_transformers_cannot_express_is_said_and_nothing_written(tmp_path, host, what):
    with pytest.raises(ValueError, match=f"cannot express .*{what}.*--to timm"):
        export_transformers(host(), tmp_path / "transformers", MEAN, STD)
    assert not any(tmp_path.iterdir())


def write(library: str, host: Any, folder: Path) -> None:
    if library == "timm":
        export_timm(Encoder.of(host.encoder, MEAN, STD, "mine"), folder)
    else:
        export_transformers(host, folder, MEAN, STD)


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_an_export_replaces_an_export_and_an_empty_folder(tmp_path, library):
    host, folder = build_host(), tmp_path / "runs" / "export"
    write(library, host, folder)
    before = (folder / "model.safetensors").read_bytes()
    with torch.no_grad():
        host.encoder.norm.bias.add_(1)
    write(library, host, folder)
    assert (folder / "model.safetensors").read_bytes() != before
    (tmp_path / "empty").mkdir()
    write(library, host, tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["empty", "export", "runs"]


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_what_is_no_export_is_left_alone(tmp_path, library):
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "vit_mae"}')
    with pytest.raises(ValueError, match="foreign exists and is no export of evomask: choose another --out"):
        write(library, build_host(), foreign)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="file exists"):
        write(library, build_host(), tmp_path / "file")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "file", "foreign"]


@pytest.mark.parametrize(
    ("library", "writer"),
    [
        ("timm", "save_file"),
        ("timm", "save_config_for_hf"),
        ("transformers", "save_file"),
        ("transformers", "_write_json"),
    ],
)
@pytest.mark.parametrize("exported_before", [True, False])
def test_a_half_written_export_never_stands(tmp_path, monkeypatch, library, writer, exported_before):
    host, folder = build_host(), tmp_path / "export"
    if exported_before:
        write(library, host, folder)
    before = contents(tmp_path)

    def fail(*_, **__):
        raise OSError("no space left on device")

    monkeypatch.setattr(export, writer, fail)
    with pytest.raises(OSError, match="no space left"):
        write(library, host, folder)
    assert contents(tmp_path) == before
    assert folder.exists() == exported_before


def test_what_a_killed_export_left_is_cleared(tmp_path):
    (tmp_path / "export.unfinished").mkdir()
    (tmp_path / "export.unfinished" / "model.safetensors").write_bytes(b"half")
    write("transformers", build_host(), tmp_path / "export")
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
