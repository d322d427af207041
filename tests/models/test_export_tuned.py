"""An encoder as a task has left it, exported: timm makes the same from the folder, with whatever the task has changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from evomask.models.classifier import add_classifier
from evomask.models.encoders import Encoder, load_encoder
from evomask.models.export import export_timm
from evomask.models.feature_pyramid import FeaturePyramid
from evomask.models.vit import ViTConfig, build_vit

MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)


def vit(**options: Any) -> Any:
    sizes = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 32, "patch_size": 8}
    return timm.create_model("vit_tiny_patch16_224", **({"num_classes": 0} | sizes | options))


def beit() -> Any:
    sizes = {"embed_dim": 48, "depth": 4, "num_heads": 3, "img_size": 32, "patch_size": 8}
    return timm.create_model("beit_base_patch16_224", num_classes=0, **sizes)


def swin() -> Any:
    sizes = {"embed_dim": 24, "depths": (1, 1, 1), "num_heads": (2, 2, 2), "img_size": 32, "patch_size": 2, "window_size": 4}
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **sizes)


def segmented(model: nn.Module) -> None:
    FeaturePyramid(model, (64, 96), drop_path=0.1)


def shortened(model: nn.Module) -> None:
    FeaturePyramid(model, (32, 32), blocks=(0, 1, 4, 7))


def classified(model: nn.Module) -> None:
    nn.init.normal_(add_classifier(model, 5, drop_path=0.1).get_classifier().weight)


def classified_by_token(model: nn.Module) -> None:
    nn.init.normal_(add_classifier(model, 5, pooling="token").get_classifier().weight)


@pytest.mark.parametrize(
    ("build", "change"),
    [
        *((build, change) for build in (vit, beit, swin) for change in (segmented, classified)),
        *((build, change) for build in (vit, beit) for change in (shortened, classified_by_token)),
    ],
)
def test_timm_makes_the_same_model(tmp_path: Path, build: Callable[[], Any], change: Callable[[nn.Module], None]) -> None:
    torch.manual_seed(0)
    model = build()
    encoder = Encoder.of(model, MEAN, STD, "mine")
    change(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    export_timm(encoder, tmp_path / "timm")

    loaded = load_encoder(str(tmp_path / "timm"))
    size = (64, 96) if change is segmented else (32, 32)
    assert (loaded.image_size, loaded.mean, loaded.std) == (size, MEAN, STD)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    if build is beit and change is not classified and change is not classified_by_token:
        for block in model.blocks:  # a pyramid tells BEiT's blocks the grid of each image
            block.attn.grid = tuple(side // 8 for side in size)
    with torch.no_grad():
        expected = model.eval().forward_features(images)
        torch.testing.assert_close(loaded.model.forward_features(images), expected, atol=1e-5, rtol=1e-5)
        if change in (classified, classified_by_token):
            assert expected.std() > 0.1
            torch.testing.assert_close(loaded.model(images), model(images), atol=1e-5, rtol=1e-5)


def test_what_was_tuned_may_be_tuned_again(tmp_path: Path) -> None:
    first = Encoder.of(vit(), MEAN, STD, "first")
    add_classifier(first.model, 5)
    export_timm(first, tmp_path / "first")
    second = load_encoder(str(tmp_path / "first"))
    FeaturePyramid(second.model, (64, 64))
    export_timm(second, tmp_path / "second")
    third = load_encoder(str(tmp_path / "second"))
    with torch.no_grad():
        images = torch.rand(2, 3, 64, 64)
        torch.testing.assert_close(third.model.forward_features(images), second.model.eval().forward_features(images))


@pytest.mark.parametrize("build", [vit, beit, swin])
def test_what_was_tuned_of_a_file_of_weights_is_timms_too(tmp_path: Path, build: Callable[[], Any]) -> None:
    save_file(build().state_dict(), tmp_path / "weights.safetensors")
    spec = "weights.safetensors?heads=3" if build is vit else "weights.safetensors"
    tuned = load_encoder(str(tmp_path / spec))
    with torch.no_grad():
        for parameter in tuned.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    export_timm(tuned, tmp_path / "timm")
    loaded = load_encoder(str(tmp_path / "timm"))
    images = torch.randn(2, 3, *tuned.image_size)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.forward_features(images), tuned.model.forward_features(images))


def test_a_model_that_timm_has_not_made_is_refused(tmp_path: Path) -> None:
    model = VisionTransformer(img_size=16, patch_size=8, embed_dim=48, depth=1, num_heads=3, num_classes=0)
    with pytest.raises(ValueError, match=r"timm is not told by weights\.pth how to make its model"):
        export_timm(Encoder.of(model, MEAN, STD, "weights.pth"), tmp_path / "timm")
    assert not (tmp_path / "timm").exists()


def test_a_model_that_timm_makes_another_way_is_refused(tmp_path: Path) -> None:
    model = vit()
    model.norm = nn.Identity()
    with pytest.raises(ValueError, match=r"timm makes another model than what has become of mine: .*norm\.weight") as caught:
        export_timm(Encoder.of(model, MEAN, STD, "mine"), tmp_path / "timm")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_weights_that_have_never_been_timms_have_neither_its_tag_nor_its_licence(tmp_path: Path) -> None:
    model = build_vit(ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, depth=2))
    add_classifier(model, 5)
    export_timm(Encoder.of(model, MEAN, STD, "untrained"), tmp_path / "timm")
    said = json.loads((tmp_path / "timm" / "config.json").read_text())["pretrained_cfg"]
    assert said["tag"] == "evomask" and not {"license", "hf_hub_id", "origin_url", "paper_ids"} & said.keys()


def test_it_says_who_has_exported_it(tmp_path: Path) -> None:
    model = vit(in_chans=3)
    export_timm(Encoder.of(model, MEAN, STD, "mine"), tmp_path / "timm")
    assert json.loads((tmp_path / "timm" / "config.json").read_text())["exported_by"] == "evomask"
    export_timm(Encoder.of(model, MEAN, STD, "mine"), tmp_path / "timm")  # which an export may replace
