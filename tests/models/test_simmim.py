"""The SimMIM hosts: what they hide, what their loss counts. Equality with public SimMIMs is shown in parity/."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from evomask.masking import Mask
from evomask.models.simmim import SimMIM, SimMIMConfig, SwinSimMIM, SwinSimMIMConfig, ViTSimMIM
from evomask.models.swin import SwinConfig
from evomask.models.vit import ViTConfig, attention_maps, embed_patches

VIT = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 48), patch_size=8, width=24, depth=3, heads=2, registers=1)
SWIN: dict[str, Any] = {"image_size": (32, 64), "width": 8, "depths": (2, 2, 2), "heads": (1, 2, 2), "window": 4}
V1 = SwinConfig(**SWIN)
V2 = SwinConfig(name="swinv2_tiny_window8_256", **SWIN)
CONFIGS = {
    "vit": SimMIMConfig(encoder=VIT),
    "swin": SwinSimMIMConfig(encoder=V1, cell=8),
    "swin, large cells": SwinSimMIMConfig(encoder=V1, cell=16),
    "swin v2, cells that are tokens": SwinSimMIMConfig(encoder=V2, cell=4),
}


def build(name: str) -> SimMIM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        host: SimMIM = CONFIGS[name].build().eval()
        for parameter in host.parameters():  # Swin v2 begins as the identity
            with torch.no_grad():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return host


HOSTS = {name: build(name) for name in CONFIGS}


def photos(host: SimMIM, images: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(images, 3, *host.encoder.patch_embed.img_size, generator=torch.Generator().manual_seed(seed))


def some_mask(host: SimMIM, hidden: int, images: int = 2) -> Mask:
    places = host.grid[0] * host.grid[1]
    return Mask.highest(torch.rand(images, places, generator=torch.Generator().manual_seed(5)), hidden)


def pixels_hidden(host: SimMIM, mask: Mask) -> Tensor:
    """(B, H, W) bool, written apart from `patchify`."""
    (rows, columns), (height, width) = host.grid, host.patch_size
    return mask.masked.view(-1, rows, columns).repeat_interleave(height, 1).repeat_interleave(width, 2)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_loss_is_that_of_the_public_code(name):
    """models/simmim.py of microsoft/SimMIM, in its own terms."""
    host = HOSTS[name]
    images, mask = photos(host), some_mask(host, 5)
    tokens = host.embed(images)
    output, restored = host(images, tokens, mask), host.restore(tokens, mask)
    assert restored.shape == images.shape
    hidden = pixels_hidden(host, mask).unsqueeze(1)
    expected = ((images - restored).abs() * hidden).sum() / (hidden.sum() + 1e-5) / 3
    torch.testing.assert_close(output.loss, expected, rtol=1e-6, atol=0)
    assert output.prediction.shape == (2, 5, host.patch_size[0] * host.patch_size[1] * 3)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_hidden_pixels_cannot_be_seen(name):
    host, mask = HOSTS[name], some_mask(HOSTS[name], 6)
    images = photos(host)
    hidden = pixels_hidden(host, mask).unsqueeze(1).expand_as(images)
    others = torch.where(hidden, photos(host, seed=9), images)
    first, second = (host.restore(host.embed(x), mask) for x in (images, others))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    seen = torch.where(hidden, images, photos(host, seed=9))
    assert (host.restore(host.embed(seen), mask) - first).abs().mean() > 1e-3


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_the_loss_counts_hidden_pixels_alone(name):
    host, mask = HOSTS[name], some_mask(HOSTS[name], 4)
    images = photos(host)
    tokens = host.embed(images)
    hidden = pixels_hidden(host, mask).unsqueeze(1)
    elsewhere = torch.where(hidden, images, images + 1)
    assert torch.equal(host(elsewhere, tokens, mask).loss, host(images, tokens, mask).loss)
    assert host(torch.where(hidden, images + 1, images), tokens, mask).loss != host(images, tokens, mask).loss


@pytest.mark.parametrize("name", CONFIGS)
def test_the_reconstruction_is_the_image_where_it_is_seen(name):
    host, mask = HOSTS[name], some_mask(HOSTS[name], 3)
    images = photos(host)
    restored = host.reconstruct(images, mask)
    hidden = pixels_hidden(host, mask).unsqueeze(1).expand_as(images)
    assert torch.equal(restored[~hidden], images[~hidden])
    expected = host.restore(host.embed(images), mask)
    torch.testing.assert_close(restored[hidden], expected[hidden])
    assert not restored.requires_grad


@pytest.mark.parametrize("name", CONFIGS)
def test_the_gradient_reaches_every_parameter(name):
    host = build(name).train()
    images, mask = photos(host), some_mask(host, 4)
    host(images, host.embed(images), mask).loss.backward()
    without = [key for key, p in host.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not without


@settings(max_examples=20)
@given(name=st.sampled_from(list(CONFIGS)), images=st.integers(1, 3), share=st.floats(0.05, 0.95), data=st.data())
def test_any_number_of_hidden_places(name: str, images: int, share: float, data: st.DataObject):
    host = HOSTS[name]
    places = host.grid[0] * host.grid[1]
    hidden = max(1, int(places * share))
    noise = torch.rand(images, places, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
    mask = Mask.highest(noise, hidden)
    batch = photos(host, images)
    with torch.no_grad():
        output = host(batch, host.embed(batch), mask)
    assert output.prediction.shape[:2] == (images, hidden)
    assert output.loss.isfinite()


@torch.no_grad()
def test_the_encoder_is_that_of_timm():
    for name, host in HOSTS.items():
        images = photos(host)
        mask = Mask(torch.zeros(2, host.grid[0] * host.grid[1], dtype=torch.bool), 0)
        seen = host.last_map(host.embed(images), mask.masked)
        features = host.encoder.forward_features(images)
        expected = features if "swin" in name else features[:, host.encoder.num_prefix_tokens :].unflatten(1, host.grid)
        torch.testing.assert_close(seen, expected)


def test_the_affinity_of_a_vit_is_that_of_its_patches_with_positions():
    host = HOSTS["vit"]
    images = photos(host)
    affinity = host.affinity(host.embed(images))
    maps = attention_maps(host.encoder, embed_patches(host.encoder, images), 6)
    expected = torch.stack([m.mean(dim=1)[:, 2:, 2:] for m in maps]).mean(dim=0)
    torch.testing.assert_close(affinity, expected)
    assert not affinity.requires_grad


def test_the_affinity_of_a_swin_is_between_cells():
    host = HOSTS["swin"]
    affinity = host.affinity(host.embed(photos(host)))
    assert affinity.shape == (2, 32, 32) and affinity.dtype == torch.float32 and not affinity.requires_grad
    assert host.grid == (4, 8) and host.patch_size == (8, 8)


def test_the_state_holds_encoder_mask_token_and_head_alone():
    for host in HOSTS.values():
        assert {key.split(".")[0] for key in host.state_dict()} == {"encoder", "mask_token", "head"}


def test_positions_of_the_vit_are_learnt():
    assert HOSTS["vit"].encoder.pos_embed.requires_grad


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SimMIMConfig(encoder=VIT, attention_blocks=0).build(), "attention_blocks must be at least 1, not 0"),
        (lambda: SimMIMConfig(encoder=VIT, scan_stride=5).build(), "scan_stride must lie between 1 and"),
        (lambda: ViTSimMIM(VisionTransformer(img_size=32, patch_size=(8, 16))), "square patches, not of 8 x 16 px"),  # pyright: ignore
        (
            lambda: SwinSimMIMConfig(encoder=SwinConfig(image_size=(112, 112))).build(),
            "last map has 32 px, which do not divide",
        ),
        (lambda: SwinSimMIMConfig(encoder=V1, cell=6).build(), "patches of 4 px do not divide cells of 6 px"),
        (lambda: SwinSimMIMConfig(encoder=V1, cell=12).build(), "cells of 12 px do not divide an image of 32 x 64 px"),
        (lambda: SwinSimMIM(VIT.build()), "expected a timm SwinTransformer"),
    ],
)
def test_what_cannot_be_built_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_mask_of_another_grid_is_refused(name):
    host = HOSTS[name]
    images = photos(host)
    with pytest.raises(ValueError, match=r"the mask must be \(images, patches\) = "):
        host(images, host.embed(images), Mask(torch.zeros(2, 7, dtype=torch.bool), 0))
