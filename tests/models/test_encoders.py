"""Encoders from what a user names."""

from typing import Any

import pytest
import timm
import torch
from timm.models import beit, vision_transformer
from timm.models.vision_transformer import VisionTransformer
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
    assert (encoder.width, encoder.poolings) == (48, ("token", "mean"))
    torch.testing.assert_close(encoder.features(images, "token"), vit.forward_features(images)[:, 0])


def test_final_norm_is_found_where_timm_pools_before_it(images):
    options: dict[str, Any] = CONFIG.timm_arguments() | {"global_pool": "avg"}
    vit = timm.create_model(CONFIG.name, **options)
    assert isinstance(vit.norm, nn.Identity)
    encoder = Encoder.of(vit, MEAN, STD, "pooled")
    tokens = encoder.patch_tokens(images)
    torch.testing.assert_close(tokens.var(dim=-1, correction=0), torch.ones(3, 15), atol=1e-3, rtol=0)
    # The model norms the mean, not each token, and so does the feature: it is what timm gives to a classifier.
    torch.testing.assert_close(encoder.features(images), vit.forward_head(vit.forward_features(images), pre_logits=True))


@pytest.mark.parametrize(
    "name", ["test_convnext", "test_resnet", "test_vit", "beit_base_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_any_model_of_timm_has_features(name):
    small = {
        "swin": {"embed_dim": 24, "depths": (1, 1), "num_heads": (1, 2)},
        "beit": {"embed_dim": 24, "depth": 1, "num_heads": 2},
    }
    model = timm.create_model(name, num_classes=0, **small.get(name[:4], {})).eval()
    encoder = Encoder.of(model, (0.5,) * 3, (0.5,) * 3, name)
    assert encoder.image_size == tuple(model.pretrained_cfg["input_size"][1:])
    images = torch.randn(2, 3, *encoder.image_size)
    tokens = encoder.patch_tokens(images)
    assert tokens.shape[::2] == (2, encoder.width)
    features = encoder.features(images)
    assert features.shape == (2, encoder.width)
    if name != "test_vit":  # these pool the mean; ConvNeXt has its norm after that in its head
        normed = model.head.norm(features[..., None, None])[..., 0, 0] if name == "test_convnext" else features
        torch.testing.assert_close(normed, model.forward_head(model.forward_features(images), pre_logits=True))
    assert ("token" in encoder.poolings) == ("vit" in name or "beit" in name)


def test_a_model_without_class_token_has_no_feature_of_it(images):
    options: dict[str, Any] = CONFIG.timm_arguments() | {"class_token": False, "global_pool": "avg", "reg_tokens": 2}
    encoder = Encoder.of(timm.create_model(CONFIG.name, **options), MEAN, STD, "mine")
    assert encoder.poolings == ("mean",)
    assert encoder.patch_tokens(images).shape == (3, 15, 48), "two registers are left out"
    with pytest.raises(ValueError, match="mine has no class token: its features are the mean over patches"):
        encoder.features(images, "token")


def test_what_is_no_model_of_timm_is_refused():
    with pytest.raises(ValueError, match="mine is a Linear: an encoder must be a model of timm"):
        Encoder.of(nn.Linear(2, 2), MEAN, STD, "mine")


def test_mean_and_std_are_of_the_channels_that_the_model_sees(vit):
    with pytest.raises(ValueError, match="mine sees 2 channels, but mean and std are given of 3 and 2"):
        Encoder.of(vit, (0.5, 0.5, 0.5), STD, "mine")


VIT: dict[str, Any] = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": 0}
SIZES: dict[str, tuple[type[nn.Module], Any, dict[str, Any]]] = {
    "ViT": (VisionTransformer, vision_transformer.checkpoint_filter_fn, VIT),
    "ViT with registers": (VisionTransformer, vision_transformer.checkpoint_filter_fn, VIT | {"reg_tokens": 4}),
    "registers without positions": (
        VisionTransformer, vision_transformer.checkpoint_filter_fn, VIT | {"reg_tokens": 4, "no_embed_class": True},
    ),
    "BEiT": (beit.Beit, beit.checkpoint_filter_fn, VIT | {"use_rel_pos_bias": True}),
    "BEiT, shared": (beit.Beit, beit.checkpoint_filter_fn, VIT | {"use_shared_rel_pos_bias": True, "use_abs_pos_emb": False}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:torch.searchsorted", "ignore:Using a non-tuple sequence")  # of timm's loading filter
@pytest.mark.parametrize("size", ["48", "40x72"])
@pytest.mark.parametrize("name", SIZES)
def test_positions_are_interpolated_as_timm_does(tmp_path, name, size):
    """The oracle is timm's way with its own weights: a model of the other size, and its loading filter."""
    torch.manual_seed(0)
    build, filter_fn, options = SIZES[name]
    small: Any = build(img_size=32, **options)
    nn.init.normal_(small.get_parameter(next(key for key, _ in small.named_parameters() if "pos" in key)))
    torch.save(small.state_dict(), tmp_path / "weights.pth")
    image_size = (48, 48) if size == "48" else (40, 72)
    other: Any = build(img_size=image_size, **options).eval()
    other.load_state_dict(filter_fn(small.state_dict(), other))
    encoder = load_encoder(f"{tmp_path / 'weights.pth'}?heads=3&image_size={size}")
    assert encoder.image_size == image_size
    images = torch.randn(2, 3, *image_size)
    with torch.no_grad():
        torch.testing.assert_close(encoder.model(images), other(images), atol=1e-5, rtol=1e-5)
        resized = load_encoder(f"{tmp_path / 'weights.pth'}?heads=3").resized(image_size)
        torch.testing.assert_close(resized.model(images), other(images), atol=1e-5, rtol=1e-5)


def test_other_sizes_of_exports_and_of_timm(tmp_path, vit):
    export_timm(Encoder.of(vit, MEAN, STD, "mine"), tmp_path / "export")
    encoder = load_encoder(f"{tmp_path / 'export'}?image_size=48x80")
    assert encoder.image_size == (48, 80)
    assert encoder.patch_tokens(torch.randn(2, 2, 48, 80)).shape == (2, 60, 48)
    assert encoder.resized((48, 80)) is encoder


def test_sizes_that_cannot_be(tmp_path, vit):
    export_timm(Encoder.of(vit, MEAN, STD, "mine"), tmp_path / "export")
    with pytest.raises(ValueError, match=r"export.* has patches of 8 x 8 px, which do not divide 48 x 50 px"):
        load_encoder(f"{tmp_path / 'export'}?image_size=48x50")
    encoder = Encoder.of(timm.create_model("test_resnet"), (0.5,) * 3, (0.5,) * 3, "mine")
    with pytest.raises(ValueError, match="mine is a ResNet, whose image size timm cannot change"):
        encoder.resized((48, 48))


def test_attention_can_be_had_of_known_architectures_alone(vit):
    assert Encoder.of(vit, MEAN, STD, "mine").plain_vit() is vit
    assert Encoder.of(vit, MEAN, STD, "mine").tap.grid == vit.patch_embed.grid_size
    other = Encoder.of(timm.create_model("test_resnet"), (0.5,) * 3, (0.5,) * 3, "mine")
    with pytest.raises(ValueError, match=r"attention, masks and trees cannot be had of mine: expected .*, not a ResNet"):
        _ = other.tap
    with pytest.raises(ValueError, match=r"mine is no plain ViT: expected .*, not a ResNet"):
        other.plain_vit()
