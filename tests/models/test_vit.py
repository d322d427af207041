"""The ViT of timm: its positions, its patch embedding, and the tap on its attention against a plain forward pass."""

from collections.abc import Callable
from math import cos, sin
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evomask.models.vit import (
    ViTConfig,
    attention_maps,
    build_vit,
    check_plain_vit,
    embed_patches,
    fix_sincos_positions,
    mean_patch_attention,
    sincos_positions,
    with_prefix,
)

TINY = "vit_tiny_patch16_224"


def small(**options: Any) -> Callable[[], Any]:
    given: dict[str, Any] = {"image_size": (32, 32), "patch_size": 8, "width": 48, "depth": 3, "heads": 3} | options
    return lambda: build_vit(ViTConfig(name=TINY, **given))


def by_timm(**options: Any) -> Callable[[], Any]:
    given: dict[str, Any] = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3} | options
    return lambda: timm.create_model(TINY, num_classes=0, **given)


def named(name: str, image_size: int, patch_size: int, **options: Any) -> Callable[[], Any]:
    return lambda: build_vit(ViTConfig(name=name, image_size=(image_size, image_size), patch_size=patch_size, **options))


VARIANTS: dict[str, Callable[[], Any]] = {
    "tiny": named("vit_tiny_patch16_224", 64, 16),
    "small": named("vit_small_patch16_224", 64, 16),
    "base": named("vit_base_patch16_224", 64, 16),
    "large": named("vit_large_patch16_224", 64, 16, depth=2),
    "huge": named("vit_huge_patch14_224", 56, 14, depth=2),
    "patch 8": small(),
    "patch 14": small(image_size=(56, 56), patch_size=14),
    "non-square": small(image_size=(24, 40)),
    "1 channel": small(in_chans=1),
    "4 channels": small(in_chans=4),
    "no class token": small(class_token=False),
    "registers": small(registers=4),
    "registers, no class token": small(class_token=False, registers=2),
    "registers without positions (dinov2)": named("vit_small_patch14_reg4_dinov2", 56, 14, registers=4, depth=2),
    "registers without positions (gap)": named(
        "vit_medium_patch16_reg4_gap_256", 64, 16, registers=4, class_token=False, depth=2
    ),
    "qk-norm": small(qk_norm=True),
    "layer scale": by_timm(init_values=0.3),
    "norm before the blocks (clip)": named("vit_base_patch16_clip_224", 64, 16, depth=2),
    "norm inside attention and MLP": by_timm(scale_attn_norm=True, scale_mlp_norm=True),
    "drop path, training": lambda: small(drop_path=0.9)().train(),
    "attention dropout, training": lambda: by_timm(attn_drop_rate=0.9)().train(),
}


def shaken(encoder: Any) -> Any:
    """The encoder with weights so far from initial ones that each of them shows in the attention."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder


def random_images(encoder: Any, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, encoder.in_chans, *encoder.patch_embed.img_size, generator=generator)


def captured_attention(encoder: Any, images: Tensor) -> list[Tensor]:
    """The softmax inside each block of timm's own forward pass, in evaluation mode."""
    maps: list[Tensor] = []
    handles = []
    for block in encoder.blocks:
        block.attn.fused_attn = False
        handles.append(block.attn.attn_drop.register_forward_pre_hook(lambda _, inputs: maps.append(inputs[0])))
    training = encoder.training
    with torch.no_grad():
        encoder.eval().forward_features(images)
    encoder.train(training)
    for handle in handles:
        handle.remove()
    return maps


@pytest.mark.parametrize("variant", VARIANTS)
def test_tap_equals_the_softmax_of_a_plain_forward_pass(variant):
    encoder = shaken(VARIANTS[variant]())
    images = random_images(encoder)
    expected = captured_attention(encoder, images)[:6]
    with torch.no_grad():
        tapped = list(attention_maps(encoder, embed_patches(encoder, images), blocks=6))
        mean = mean_patch_attention(encoder, embed_patches(encoder, images), blocks=6)

    assert len(tapped) == len(expected) == min(6, len(encoder.blocks))
    for ours, theirs in zip(tapped, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    assert max(attention.max() - attention.min() for attention in expected) > 0.1, "an even attention would prove little"

    rows, columns = encoder.patch_embed.grid_size
    patches = expected[0].shape[-1] - rows * columns
    by_hand = torch.stack([attention[:, :, patches:, patches:].double() for attention in expected]).mean(dim=(0, 2))
    torch.testing.assert_close(mean.double(), by_hand, atol=1e-6, rtol=0)


def test_tap_runs_nothing_after_the_queries_and_keys_of_the_last_block():
    encoder = small()()
    images = random_images(encoder)
    tokens = embed_patches(encoder, images)
    batch, width, length = len(images), encoder.embed_dim, tokens.shape[1] + encoder.num_prefix_tokens
    with FlopCounterMode(display=False) as counter:
        mean_patch_attention(encoder, tokens, blocks=2)
    scores, linear = length * length * width, length * width * width
    whole_block = 3 * linear + 2 * scores + linear + 8 * linear  # query, key, value; scores, mixing; projection; mlp
    assert counter.get_total_flops() == 2 * batch * (whole_block + 2 * linear + scores)


@pytest.mark.parametrize("image_size", [(32, 48), (40, 24)])
def test_scan_of_every_other_patch_keeps_what_it_saw_and_fills_in_linearly(image_size):
    encoder = small(image_size=image_size)()
    rows, columns = encoder.patch_embed.grid_size
    tokens = embed_patches(encoder, random_images(encoder))
    seen = torch.arange(rows * columns).view(rows, columns)[::2, ::2].flatten()
    with torch.no_grad():
        maps = list(attention_maps(encoder, tokens[:, seen], blocks=2))
    prefix = encoder.num_prefix_tokens
    coarse = torch.stack(maps).mean(dim=(0, 2))[:, prefix:, prefix:]
    full = mean_patch_attention(encoder, tokens, blocks=2, stride=2)

    assert full.shape == (2, rows * columns, rows * columns)
    torch.testing.assert_close(full[:, seen][:, :, seen], coarse, atol=1e-6, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        scanned = mean_patch_attention(encoder, tokens.detach().bfloat16(), blocks=1, stride=2)
    assert scanned.dtype == torch.float32
    assert scanned[0, 0, seen].bfloat16().float().ne(scanned[0, 0, seen]).any(), "not rounded to bfloat16"
    # The patch between the first two of a row, seen from patch 0: half of each.
    torch.testing.assert_close(full[:, 0, 1], (full[:, 0, 0] + full[:, 0, 2]) / 2, atol=1e-6, rtol=0)
    # Beyond the last patch that was seen there is nothing to interpolate with.
    if columns % 2 == 0:
        torch.testing.assert_close(full[:, 0, columns - 1], full[:, 0, columns - 2], atol=1e-6, rtol=0)


def test_mean_attention_is_float32_without_gradient_and_takes_what_blocks_there_are():
    encoder = small()()
    tokens = embed_patches(encoder, random_images(encoder))
    assert tokens.requires_grad
    mean = mean_patch_attention(encoder.bfloat16(), tokens.bfloat16(), blocks=99)
    assert mean.dtype == torch.float32
    assert not mean.requires_grad
    assert mean.shape == (2, 16, 16)


@pytest.mark.parametrize(
    "variant", ["patch 8", "non-square", "no class token", "registers", "registers without positions (dinov2)"]
)
def test_tokens_are_what_timm_gives_its_first_block(variant):
    encoder = shaken(VARIANTS[variant]()).eval()
    images = random_images(encoder)
    given: list[Tensor] = []
    encoder.blocks[0].register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    encoder.forward_features(images)
    torch.testing.assert_close(with_prefix(encoder, embed_patches(encoder, images)), given[0], atol=1e-6, rtol=0)


def test_positions_by_hand():
    # Width 8: two frequencies, 1 and 10000^-(1/2) = 0.01; quarters sin x, cos x, sin y, cos y.
    positions = sincos_positions((2, 3), 8)
    assert positions.shape == (6, 8)
    for row in range(2):
        for column in range(3):
            x, y = (column, column / 100), (row, row / 100)
            expected = [*map(sin, x), *map(cos, x), *map(sin, y), *map(cos, y)]
            torch.testing.assert_close(positions[row * 3 + column], torch.tensor(expected), atol=1e-7, rtol=0)


@pytest.mark.parametrize(("variant", "prefix"), [("patch 8", 1), ("registers", 5), ("no class token", 0)])
def test_fixed_positions_are_frozen_and_zero_for_class_token_and_registers(variant, prefix):
    encoder = VARIANTS[variant]()
    fix_sincos_positions(encoder)
    assert encoder.pos_embed is not None
    assert not encoder.pos_embed.requires_grad
    assert encoder.pos_embed.shape == (1, prefix + 16, 48)
    assert not encoder.pos_embed[0, :prefix].any()
    assert torch.equal(encoder.pos_embed[0, prefix:], sincos_positions((4, 4), 48))


def test_config_overrides_what_the_name_says():
    encoder: Any = build_vit(ViTConfig(name=TINY, image_size=(24, 40), patch_size=8, in_chans=2, width=64, depth=2, heads=4))
    assert type(encoder) is VisionTransformer
    assert encoder.patch_embed.grid_size == (3, 5)
    assert encoder.patch_embed.proj.weight.shape == (64, 2, 8, 8)
    attentions: list[Any] = [block.attn for block in encoder.blocks]
    assert [attention.num_heads for attention in attentions] == [4, 4]
    assert build_vit(ViTConfig(name=TINY, depth=1)).embed_dim == 192


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "vit_nano"}, "timm knows no model 'vit_nano'"),
        ({"name": "resnet18"}, "resnet18 cannot be built as a plain ViT"),
        ({"name": "deit_tiny_distilled_patch16_224"}, "expected a timm VisionTransformer"),
        ({"image_size": (224, 230)}, "patches of 16 x 16 px do not divide an image of 224 x 230 px"),
        ({"heads": 5}, "dim should be divisible by num_heads"),
        ({"depth": 0}, "depth must be at least 1"),
        ({"patch_size": 0}, "patch_size must be at least 1"),
        ({"registers": -1}, "registers must be 0 or more"),
        ({"drop_path": 1.0}, "drop_path in"),
    ],
)
def test_what_cannot_be_built_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        build_vit(ViTConfig(**({"name": TINY, "depth": 1} | options)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(2, 2), "not a Linear"),
        (by_timm(dynamic_img_size=True), "positions of one size"),
        (by_timm(pos_embed="none"), "positions of one size"),
        (lambda: timm.create_model("vit_small_r26_s32_224", depth=1), "not by timm's HybridEmbed"),
        (by_timm(block_fn=timm.models.vision_transformer.ResPostBlock), "not in ResPostBlock"),
        (by_timm(attn_layer="diff"), "plain pre-norm ViT blocks only"),
        (by_timm(img_size=(32, 36)), "do not divide an image of 32 x 36 px"),
    ],
)
def test_encoders_that_the_tap_does_not_know_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        check_plain_vit(make())


def test_width_that_positions_do_not_fit():
    with pytest.raises(ValueError, match="multiple of 4, not 30"):
        sincos_positions((2, 2), 30)
