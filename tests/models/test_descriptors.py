"""Descriptors by hand, and encoders for images of any size against timm's own interpolation."""

import copy

import pytest
import timm
import torch
from torch.nn.functional import normalize

from evomask.models import any_size as any_size_module
from evomask.models.any_size import AnySize
from evomask.models.descriptors import GlobalDescriptor, generalised_mean, merged
from evomask.models.encoders import Encoder
from evomask.models.vit import ViTConfig, build_vit

MEAN, STD = (0.5,) * 3, (0.25,) * 3


def vit(class_token: bool = True) -> Encoder:
    torch.manual_seed(0)
    config = ViTConfig(
        name="vit_tiny_patch16_224", image_size=(16, 16), patch_size=4, width=16, depth=2, heads=2, class_token=class_token
    )
    return Encoder.of(build_vit(config), MEAN, STD, "tiny")


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1))


def test_generalised_mean_by_hand() -> None:
    tokens = torch.tensor([[[1.0, 2.0, -1.0], [3.0, 2.0, -5.0]]])
    assert torch.allclose(generalised_mean(tokens, 1.0), torch.tensor([[2.0, 2.0, 1e-6]]))
    assert torch.allclose(generalised_mean(tokens, 3.0)[0, 0], torch.tensor(14.0 ** (1 / 3)))
    assert torch.allclose(generalised_mean(tokens, 60.0)[0, 0], torch.tensor(3.0), atol=0.05)


@torch.no_grad()
def test_descriptors_are_pooled_projected_and_of_length_one() -> None:
    encoder = vit()
    seen = images(16, 16)
    expected = {
        "gem": generalised_mean(encoder.patch_tokens(seen), 3.0),
        "mean": encoder.features(seen, "mean"),
        "token": encoder.features(seen, "token"),
    }
    for pooling, features in expected.items():
        plain = GlobalDescriptor(encoder, pooling)  # type: ignore[arg-type]
        assert plain.width == 16
        torch.testing.assert_close(plain(seen), normalize(features, dim=1))
        projected = GlobalDescriptor(encoder, pooling, width=5)  # type: ignore[arg-type]
        found = projected(seen)
        torch.testing.assert_close(found, normalize(projected.projection(features), dim=1))
        torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_what_cannot_be_is_named() -> None:
    with pytest.raises(ValueError, match="has no class token: its descriptors are of --pooling gem or mean"):
        GlobalDescriptor(vit(class_token=False), "token")
    with pytest.raises(ValueError, match="must be at least 1"):
        GlobalDescriptor(vit(), power=0.5)


def test_scales_are_averaged_and_brought_to_length_one() -> None:
    one, other = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    torch.testing.assert_close(merged([one, other]), torch.full((1, 2), 0.5**0.5))
    torch.testing.assert_close(merged([one, one, one]), one)


@torch.no_grad()
def test_another_size_is_seen_as_by_the_encoder_made_for_it() -> None:
    encoder = vit()
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    any_size = AnySize(encoder)
    assert any_size.unit == (4, 4)
    assert any_size(16, 16) is encoder
    for size in ((24, 8), (40, 12), (24, 8)):
        expected = vit().resized(size).patch_tokens(images(*size))
        torch.testing.assert_close(any_size(*size).patch_tokens(images(*size)), expected, rtol=0, atol=0)
    torch.testing.assert_close(encoder.model.state_dict(), before, rtol=0, atol=0)
    shared = {id(tensor) for tensor in encoder.model.parameters()}
    own = [name for name, tensor in any_size(24, 8).model.named_parameters() if id(tensor) not in shared]
    assert own == ["pos_embed"], "all other weights are the same tensors"
    with pytest.raises(ValueError, match="do not divide"):
        any_size(18, 16)


@torch.no_grad()
def test_the_sizes_used_last_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(any_size_module, "KEPT", 2)
    any_size = AnySize(vit())
    first = any_size(8, 8)
    assert any_size(8, 8) is first
    any_size(4, 8)
    assert any_size(8, 8) is first
    any_size(4, 8)
    any_size(4, 12)
    assert any_size(8, 8) is not first


@torch.no_grad()
def test_swin_and_networks_without_patches_see_other_sizes_too() -> None:
    swin = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=32, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 1), num_classes=0
    )
    before = copy.deepcopy(swin.state_dict())
    encoder = Encoder.of(swin, MEAN, STD, "swin")
    assert AnySize(encoder)(48, 40).patch_tokens(images(48, 40)).shape == (2, 6 * 5, 16)
    torch.testing.assert_close(swin.state_dict(), before, rtol=0, atol=0)
    network = Encoder.of(timm.create_model("resnet10t", num_classes=0), MEAN, STD, "network")
    any_size = AnySize(network)
    assert any_size.unit == (1, 1)
    assert GlobalDescriptor(network).describe(any_size(40, 67), images(40, 67)).shape == (2, 512)
