"""Four maps of any encoder: what timm itself makes of the same image, brought to four sizes."""

import copy
import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.beit import Beit
from torch import Tensor, nn

from evomask.models.feature_pyramid import FeaturePyramid
from evomask.models.swin import SwinConfig
from evomask.models.vit import ViTConfig

Randomise = Callable[[nn.Module], nn.Module]


def tiny_vit(**options: Any) -> Any:
    sizes = {"image_size": (64, 64), "patch_size": 8, "width": 32, "depth": 6, "heads": 2}
    return ViTConfig(name="vit_tiny_patch16_224", **(sizes | options)).build()


def tiny_beit(**options: Any) -> Any:
    return Beit(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=3, init_values=0.1, **options)


def tiny_swin(name: str = "swin_tiny_patch4_window7_224", **options: Any) -> Any:
    return SwinConfig(
        name=name,
        **({"image_size": (56, 56), "window": 4, "width": 8, "depths": (1, 2, 2, 1), "heads": (1, 1, 2, 2)} | options),
    ).build()


def raw(pyramid: FeaturePyramid) -> FeaturePyramid:
    """The same, without what brings a ViT's maps to four sizes."""
    pyramid.adaptors = nn.ModuleList([nn.Identity()] * 4)
    return pyramid.eval()


def photo(*size: int) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("vit_small_patch16_224", (384,) * 4),
        ("vit_base_patch16_224", (768,) * 4),
        ("swin_tiny_patch4_window7_224", (96, 192, 384, 768)),
        ("swinv2_tiny_window8_256", (96, 192, 384, 768)),
    ],
)
def test_strides_and_channels_of_published_encoders(name: str, channels: tuple[int, ...]) -> None:
    with torch.device("meta"):  # shapes alone
        pyramid = FeaturePyramid(timm.create_model(name), (512, 512)).eval()
        maps = pyramid(torch.zeros(1, 3, 512, 384))
    assert pyramid.channels == channels
    assert pyramid.strides == (4, 8, 16, 32)
    assert [tuple(each.shape) for each in maps] == [
        (1, width, 512 // stride, 384 // stride) for width, stride in zip(channels, (4, 8, 16, 32), strict=True)
    ]


def test_positions_at_512_px_are_those_of_timm() -> None:
    encoder = tiny_vit(image_size=(224, 224), patch_size=16)
    nn.init.normal_(encoder.pos_embed)
    expected = copy.deepcopy(encoder)
    expected.set_input_size((512, 512))
    assert torch.equal(FeaturePyramid(encoder, (512, 512)).encoder.pos_embed, expected.pos_embed)
    assert expected.pos_embed.shape == (1, 1 + 32 * 32, 32)


@pytest.mark.parametrize("size", [(64, 64), (48, 80)], ids=["its own size", "another size"])
@pytest.mark.parametrize("options", [{}, {"registers": 2}, {"class_token": False}, {"depth": 12}], ids=str)
def test_maps_of_a_vit_are_timms(options: dict[str, Any], size: tuple[int, int], randomise: Randomise) -> None:
    encoder: Any = randomise(tiny_vit(**options))
    own: Any = copy.deepcopy(encoder)
    own.set_input_size(size)
    taken = [3, 5, 7, 11] if options.get("depth") == 12 else [1, 2, 3, 5]
    with torch.no_grad():
        maps = raw(FeaturePyramid(encoder, (64, 64)))(photo(*size))
        final, expected = own.forward_intermediates(photo(*size), indices=taken)
    for found, wanted in zip(maps[:3], expected[:3], strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    patches = final[:, own.num_prefix_tokens :].mT.unflatten(2, (size[0] // 8, size[1] // 8))
    torch.testing.assert_close(maps[3], patches, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (16, 48)], ids=["its own size", "another size"])
@pytest.mark.parametrize(
    "options",
    [{"use_rel_pos_bias": True}, {"use_shared_rel_pos_bias": True, "global_pool": "token"}, {"use_abs_pos_emb": False}],
    ids=["a table a block", "one table", "no positions"],
)
def test_maps_of_a_beit_are_timms(options: dict[str, Any], size: tuple[int, int], randomise: Randomise) -> None:
    encoder: Any = randomise(tiny_beit(**options))
    own: Any = copy.deepcopy(encoder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's advice on timm's code
        own.set_input_size(size)
    with torch.no_grad():
        maps = raw(FeaturePyramid(encoder, (32, 32)))(photo(*size))
        final, expected = own.forward_intermediates(photo(*size), indices=[1, 1, 2, 3])
        final = own.fc_norm(final)
    for found, wanted in zip(maps[1:3], expected[1:3] if len(expected) == 4 else expected[:2], strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps[0], maps[1])
    patches = final[:, 1:].mT.unflatten(2, (size[0] // 8, size[1] // 8))
    torch.testing.assert_close(maps[3], patches, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(64, 64), (32, 96)], ids=["its own size", "another size"])
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_maps_of_a_swin_are_timms(name: str, size: tuple[int, int], randomise: Randomise) -> None:
    encoder: Any = randomise(tiny_swin(name))
    own: Any = copy.deepcopy(encoder)
    # Blocks are shifted as they are at 64 px: at another size timm would set other shifts.
    own.set_input_size((64, 64), window_size=4)
    own.patch_embed.strict_img_size = False
    for module in own.modules():
        if hasattr(module, "dynamic_mask"):
            module.dynamic_mask = True
    pyramid = FeaturePyramid(encoder, (64, 64)).eval()
    with torch.no_grad():
        maps = pyramid(photo(*size))
        expected = own.forward_intermediates(photo(*size), norm=True, intermediates_only=True)
    assert torch.equal(maps[3], expected[3])
    for found, wanted in zip(maps[:3], expected[:3], strict=True):
        normed = nn.functional.layer_norm(wanted.permute(0, 2, 3, 1), wanted.shape[1:2]).permute(0, 3, 1, 2)
        torch.testing.assert_close(found, normed)


def test_last_stages_of_a_swin_are_shifted_where_there_is_room() -> None:
    small = tiny_swin(depths=(1, 2, 2, 2))  # 7 x 7 tokens in the third stage, 4 x 4 in the last: one window
    assert small.layers[3].blocks[1].shift_size == (0, 0)
    large = FeaturePyramid(small, (256, 256)).encoder
    assert large.layers[3].blocks[1].shift_size == (2, 2)
    assert {block.window_size for stage in large.layers for block in stage.blocks} == {(4, 4)}


def test_a_swin_of_three_stages_has_its_third_map_pooled() -> None:
    encoder = tiny_swin(depths=(1, 1, 2), heads=(1, 1, 2), image_size=(64, 64))
    pyramid = FeaturePyramid(encoder, (64, 64)).eval()
    maps = pyramid(photo(64, 96))
    assert pyramid.channels == (8, 16, 32, 32)
    assert pyramid.strides == (4, 8, 16, 32)
    assert [tuple(each.shape[2:]) for each in maps] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert torch.equal(maps[3], nn.functional.max_pool2d(maps[2], 2))


def test_sides_are_filled_up_with_zeros() -> None:
    pyramid = FeaturePyramid(tiny_vit(), (60, 50)).eval()
    assert pyramid.encoder.patch_embed.img_size == (64, 64)
    odd = photo(60, 50)
    maps = pyramid(odd)
    assert [tuple(each.shape[2:]) for each in maps] == [(32, 32), (16, 16), (8, 8), (4, 4)]
    for found, wanted in zip(maps, pyramid(nn.functional.pad(odd, (0, 14, 0, 4))), strict=True):
        assert torch.equal(found, wanted)


@pytest.mark.parametrize(
    ("depth", "taken"), [(12, (3, 5, 7, 11)), (24, (7, 11, 15, 23)), (6, (1, 2, 3, 5)), (2, (0, 0, 1, 1)), (1, (0, 0, 0, 0))]
)
def test_blocks_are_in_proportion_to_the_depth(depth: int, taken: tuple[int, ...]) -> None:
    assert FeaturePyramid(tiny_vit(depth=depth), (64, 64)).taken == taken


def test_what_lies_behind_the_last_map_is_dropped() -> None:
    pyramid = FeaturePyramid(tiny_vit(), (64, 64), blocks=(1, 3, 5, 7))
    assert len(pyramid.encoder.blocks) == 4


@pytest.mark.parametrize("make", [tiny_vit, lambda: tiny_beit(use_rel_pos_bias=True), tiny_swin], ids=["ViT", "BEiT", "Swin"])
def test_all_that_is_trained_has_gradients(make: Callable[[], nn.Module]) -> None:
    pyramid = FeaturePyramid(make(), (64, 64), drop_path=0.0)
    torch.stack([each.square().mean() for each in pyramid(photo(64, 64))]).sum().backward()
    assert [name for name, parameter in pyramid.named_parameters() if parameter.grad is None] == []


def test_a_frozen_encoder_stays() -> None:
    pyramid = FeaturePyramid(tiny_vit(), (64, 64), drop_path=0.5, frozen=True).train()
    assert not pyramid.encoder.training and pyramid.adaptors.training
    assert not any(parameter.requires_grad for parameter in pyramid.encoder.parameters())
    first, second = pyramid(photo(64, 64))[2], pyramid(photo(64, 64))[2]
    assert torch.equal(first, second)


def test_stochastic_depth_rises_to_the_last_block() -> None:
    pyramid = FeaturePyramid(tiny_vit(), (64, 64), drop_path=0.5)
    assert [getattr(block.drop_path1, "drop_prob", 0.0) for block in pyramid.encoder.blocks] == pytest.approx(
        [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]
    )


@pytest.mark.parametrize("grid", [(4, 8), (5, 7)], ids=["whole windows", "cut windows"])
def test_windows_are_pictures_of_their_own(grid: tuple[int, int], randomise: Randomise) -> None:
    encoder: Any = randomise(tiny_vit(depth=4, class_token=False))
    blocks = copy.deepcopy(encoder.blocks)
    tokens = torch.randn(2, *grid, 32, generator=torch.Generator().manual_seed(2))
    expected = torch.empty_like(tokens)
    for top in range(0, grid[0], 4):
        for left in range(0, grid[1], 4):
            window = tokens[:, top : top + 4, left : left + 4]
            expected[:, top : top + 4, left : left + 4] = blocks[0](window.flatten(1, 2)).view(window.shape)
    from evomask.models.feature_pyramid import _in_windows

    torch.testing.assert_close(_in_windows(encoder.blocks[0], tokens.flatten(1, 2), grid, 4), expected.flatten(1, 2))


def test_class_tokens_of_windows_are_averaged(randomise: Randomise) -> None:
    from evomask.models.feature_pyramid import _in_windows

    block: Any = randomise(tiny_vit(depth=1)).blocks[0]  # type: ignore[union-attr, index]
    token, left, right = (torch.randn(1, length, 32) for length in (1, 4, 4))
    tokens = torch.cat((token, torch.cat((left.view(1, 2, 2, 32), right.view(1, 2, 2, 32)), dim=2).flatten(1, 2)), dim=1)
    made = [block(torch.cat((token, half), dim=1))[:, :1] for half in (left, right)]
    torch.testing.assert_close(_in_windows(block, tokens, (2, 4), 2)[:, :1], (made[0] + made[1]) / 2)


def test_all_but_the_last_block_of_each_part_attend_in_windows(randomise: Randomise, monkeypatch: pytest.MonkeyPatch) -> None:
    from evomask.models import feature_pyramid

    in_windows, seen = feature_pyramid._in_windows, []

    def spy(block: Any, *more: Any) -> Tensor:
        seen.append(block)
        return in_windows(block, *more)

    monkeypatch.setattr(feature_pyramid, "_in_windows", spy)
    encoder: Any = randomise(tiny_vit(depth=12))
    pyramid = raw(FeaturePyramid(encoder, (64, 64), blocks=(2, 5, 8, 11), window=4))
    maps = pyramid(photo(64, 64))
    assert [list(pyramid.encoder.blocks).index(block) for block in seen] == [0, 1, 3, 4, 6, 7, 9, 10]
    pyramid.window = None
    assert not torch.allclose(maps[0], pyramid(photo(64, 64))[0])
    pyramid.window = 8  # as wide as the image
    whole = pyramid(photo(64, 64))
    pyramid.window = None
    torch.testing.assert_close(whole, pyramid(photo(64, 64)), atol=1e-4, rtol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a timm VisionTransformer, not a ResNet"):
        FeaturePyramid(timm.create_model("resnet18"), (64, 64))
    with pytest.raises(ValueError, match="4 stages, or of 3, not of 2"):
        FeaturePyramid(tiny_swin(depths=(1, 1), heads=(1, 1)), (64, 64))
    with pytest.raises(ValueError, match="rising from 0 to 11, not after 3, 5, 7, 12"):
        FeaturePyramid(tiny_vit(), (64, 64), blocks=(3, 5, 7, 12))
    with pytest.raises(ValueError, match="within windows is for plain ViTs, not for a SwinTransformer"):
        FeaturePyramid(tiny_swin(), (64, 64), window=4)
    assert math.isclose(FeaturePyramid(tiny_vit(patch_size=14, image_size=(56, 56)), (56, 56)).strides[0], 3.5)
