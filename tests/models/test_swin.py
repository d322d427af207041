"""The tap on Swin's attention, against timm's own forward pass and a relation between all tokens written out in full."""

import math
from typing import Any

import pytest
import torch
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer, WindowAttention
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn

from evomask.models.swin import CellAttention, SwinConfig, WindowPooling, check_swin, default_cell, window_attention

SMALL: dict[str, Any] = {"width": 8, "depths": (2, 2, 2), "heads": (1, 2, 2), "window": 4}
V1, V2 = "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"


def build(name: str, image_size: tuple[int, int], **options: Any) -> Any:
    """A small Swin whose weights are large, so that attention is far from even."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        encoder = SwinConfig(name=name, image_size=image_size, **(SMALL | options)).build().eval()
        for parameter_name, parameter in encoder.named_parameters():
            if parameter.ndim > 1 and "logit_scale" not in parameter_name:
                nn.init.normal_(parameter, std=0.5)
            elif "norm" in parameter_name:  # Swin v2 begins as the identity
                nn.init.normal_(parameter, mean=1.0, std=0.2)
    return encoder.requires_grad_(False)


def photos(image_size: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(1))


def attention_of_timm(encoder: Any, images: Tensor) -> list[tuple[Any, Tensor]]:
    """Of each block, the softmax attention (B, windows, heads, n, n) that it has in timm's own forward pass."""
    found = []
    hooks = []
    for stage in encoder.layers:
        for block in stage.blocks:
            block.attn.fused_attn = False
            hooks.append(block.attn.attn_drop.register_forward_hook(lambda _, x, __, b=block: found.append((b, x[0]))))
    encoder.forward_features(images)
    for hook in hooks:
        hook.remove()
    return [(block, attention.unflatten(0, (len(images), -1))) for block, attention in found]


def between_all_tokens(block: Any, attention_BWHnn: Tensor) -> Tensor:
    """(B, T, T), with loops: what every token gives to every other one, mean over heads."""
    (rows, columns), (height, width), (down, right) = block.input_resolution, block.window_size, block.shift_size
    relation = torch.zeros(len(attention_BWHnn), rows * columns, rows * columns)

    def token(window: int, place: int) -> int | None:
        window_row, window_column = divmod(window, math.ceil(columns / width))
        row, column = window_row * height + place // width, window_column * width + place % width
        if row >= rows or column >= columns:
            return None  # padding
        return (row + down) % rows * columns + (column + right) % columns

    for window in range(attention_BWHnn.shape[1]):
        for query in range(height * width):
            for key in range(height * width):
                a, b = token(window, query), token(window, key)
                if a is not None and b is not None:
                    relation[:, a, b] = attention_BWHnn[:, window, :, query, key].mean(dim=1)
    return relation


def pooled(relation_BTT: Tensor, columns: int, side: int, image_size: tuple[int, int], cell: int) -> Tensor:
    """(B, N, N), the mean over all pairs of pixels of two cells."""
    row, column = torch.meshgrid(*map(torch.arange, image_size), indexing="ij")
    token = (row // side * columns + column // side).flatten()
    cell_of = (row // cell * (image_size[1] // cell) + column // cell).flatten()
    share = torch.zeros(int(cell_of.max()) + 1, relation_BTT.shape[1])
    share.index_put_((cell_of, token), torch.tensor(1 / cell**2), accumulate=True)
    return share @ relation_BTT @ share.T


CASES = {
    "cells of several tokens": (V1, (64, 64), 16, {}),
    "cells that are tokens": (V1, (64, 64), 8, {}),
    "the largest cells": (V1, (64, 64), 32, {}),
    "cells smaller than tokens": (V1, (32, 32), 2, {"window": 2}),
    "cells that tokens do not divide": (V1, (48, 48), 6, {"window": 3}),
    "not square": (V1, (32, 64), 8, {}),
    "odd grids, padded": (V1, (52, 44), 4, {}),
    "odd grids and large cells": (V1, (60, 36), 12, {"window": 5}),
    "a window of the whole image": (V1, (32, 32), 8, {"window": 8}),
    "v2": (V2, (64, 64), 16, {}),
    "v2, odd grids, padded": (V2, (52, 44), 4, {"window": 3}),
}


@pytest.mark.parametrize("case", CASES)
def test_the_tap_is_the_relation_between_all_tokens_pooled(case):
    name, image_size, cell, options = CASES[case]
    encoder, images = build(name, image_size, **options), photos(image_size)
    maps = list(CellAttention(encoder, cell, 99).maps(encoder, encoder.patch_embed(images)))
    found = attention_of_timm(encoder, images)
    assert len(maps) == len(found) == 6
    expected = []
    for number, (block, attention) in enumerate(found):
        side = 4 * 2 ** (number // 2)
        relation = between_all_tokens(block, attention)
        expected.append(pooled(relation, block.input_resolution[1], side, image_size, cell))
        torch.testing.assert_close(maps[number], expected[-1], atol=1e-6, rtol=1e-5)
    mean = CellAttention(encoder, cell, 4)(encoder, encoder.patch_embed(images))
    torch.testing.assert_close(mean, torch.stack(expected[:4]).mean(dim=0), atol=1e-6, rtol=1e-5)
    assert mean.std() > 1e-3, "even attention would not tell one place from another"


def test_shifted_blocks_are_among_the_cases():
    for name, image_size, _, options in CASES.values():
        blocks = [block for stage in build(name, image_size, **options).layers for block in stage.blocks]
        assert image_size == (32, 32) or any(any(block.shift_size) for block in blocks)
        assert not any(blocks[0].shift_size)


@pytest.mark.parametrize("name", [V1, V2])
def test_pairs_that_are_in_no_window_together_have_similarity_0(name):
    encoder, images = build(name, (64, 64)), photos((64, 64))
    first, shifted = list(CellAttention(encoder, 4, 2).maps(encoder, encoder.patch_embed(images)))
    apart = first.unflatten(1, (16, 16)).unflatten(3, (16, 16))
    assert (apart[:, :4, :4, :4, :4] > 0).all()
    assert (apart[:, :4, :4, 4:] == 0).all() and (apart[:, :4, :4, :, 4:] == 0).all()
    shifted = shifted.unflatten(1, (16, 16)).unflatten(3, (16, 16))
    assert (shifted[:, 2:6, 2:6, 2:6, 2:6] > 0).all()
    assert (shifted[:, :2, :2, -2:] == 0).all(), "the roll brings the edges together, and the mask keeps them apart"


def test_a_row_sums_to_the_attention_of_its_tokens():
    """Every cell of n tokens gives 1 / n of a whole attention, so that rows can be compared; padding takes some."""
    encoder, images = build(V1, (64, 64)), photos((64, 64))
    maps = list(CellAttention(encoder, 16, 99).maps(encoder, encoder.patch_embed(images)))
    for number, tokens in enumerate((16, 16, 4, 4, 1, 1)):
        torch.testing.assert_close(maps[number].sum(dim=-1), torch.full((2, 16), 1 / tokens))
    encoder = build(V1, (52, 52))
    padded = CellAttention(encoder, 4, 1)(encoder, encoder.patch_embed(photos((52, 52))))
    assert (padded.sum(dim=-1) < 1).any() and (padded.sum(dim=-1) < 1 + 1e-5).all()


def test_no_gradient_and_no_stochastic_depth_and_nothing_in_the_state():
    encoder = build(V1, (32, 32), drop_path=0.5).train().requires_grad_(True)
    cells = CellAttention(encoder, 8, 6)
    tokens = encoder.patch_embed(photos((32, 32)))
    first, second = cells(encoder, tokens), cells(encoder, tokens)
    assert not first.requires_grad
    assert torch.equal(first, second)
    assert not cells.state_dict() and not list(cells.parameters())


def test_only_as_many_blocks_are_run_as_are_asked_for():
    encoder = build(V1, (32, 32))
    ran = []
    for stage in encoder.layers:
        for block in stage.blocks:
            block.mlp.register_forward_hook(lambda *_: ran.append(1))
            block.attn.proj.register_forward_hook(lambda *_: ran.append(1))
    list(window_attention(encoder, encoder.patch_embed(photos((32, 32))), 3))
    assert len(ran) == 4, "two blocks whole, of the third queries and keys alone"


def test_the_relation_between_all_tokens_is_never_there():
    """At 224 px the first stage has 3,136 tokens, a window touches at most 3 x 3 of the 14 x 14 cells."""
    pooling = WindowPooling((56, 56), (7, 7), (3, 3), (14, 14), (4, 16))
    assert pooling.share_WKn.shape == (64, 9, 49)
    assert pooling.places_MP.shape == (4, 196**2)


def test_low_precision_keeps_the_affinity_float32():
    encoder, images = build(V1, (32, 32)), photos((32, 32))
    cells = CellAttention(encoder, 8, 2)
    exact = cells(encoder, encoder.patch_embed(images))
    with torch.autocast("cpu", torch.bfloat16):
        rough = cells(encoder, encoder.patch_embed(images))
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.02, rtol=0.2)


@pytest.mark.parametrize(
    ("size", "patch", "cell"),
    [((224, 224), 4, 16), ((192, 192), 4, 16), ((112, 112), 4, 8), ((32, 64), 4, 4), ((52, 52), 4, 4)],
)
def test_default_cells_are_the_tokens_of_a_stage(size, patch, cell):
    assert default_cell(build(V1, size, patch_size=patch)) == cell


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "swin_nowhere"}, r"timm knows no model 'swin_nowhere': timm.list_models\('swin\*'\)"),
        ({"name": "vit_tiny_patch16_224"}, "cannot be built as a Swin|expected a timm SwinTransformer"),
        ({"name": "swinv2_cr_tiny_224"}, "cannot be built as a Swin|expected a timm SwinTransformer"),
        ({"image_size": (30, 32)}, "patches of 4 x 4 px do not divide an image of 30 x 32 px"),
        ({"depths": (2, 2), "heads": (1, 2, 2)}, "as many depths as heads, not 2 and 3"),
        ({"window": 0}, "a Swin's window must be at least 1, not 0"),
        ({"depths": (2, 0, 2)}, "a Swin's depths must be at least 1, not 0"),
        ({"drop_path": 1.0}, r"drop_path must lie in \[0, 1\), not 1.0"),
        ({"width": 9, "heads": (2, 2, 2)}, "2 heads do not divide a width of 9"),
    ],
)
def test_what_cannot_be_built_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        SwinConfig(**({"image_size": (32, 32)} | SMALL | options)).build()


class Odd(WindowAttention):
    pass


def test_other_models_are_refused():
    with pytest.raises(ValueError, match="expected a timm SwinTransformer or SwinTransformerV2, not a Beit"):
        check_swin(Beit(img_size=32, patch_size=8, embed_dim=8, depth=1, num_heads=1))
    dynamic = SwinTransformer(img_size=32, embed_dim=8, depths=(1,), num_heads=(1,), strict_img_size=False)
    with pytest.raises(ValueError, match="for images of one size"):
        check_swin(dynamic)
    foreign: Any = SwinTransformer(img_size=32, embed_dim=8, depths=(1,), num_heads=(1,))
    foreign.layers[0].blocks[0].attn = Odd(8, 1)
    with pytest.raises(ValueError, match="plain Swin blocks only"):
        check_swin(foreign)
    assert isinstance(check_swin(SwinTransformerV2(img_size=32, embed_dim=8, depths=(1,), num_heads=(1,))), nn.Module)


def test_cells_divide_the_image():
    with pytest.raises(ValueError, match="cells of 12 px do not divide an image of 32 x 32 px"):
        CellAttention(build(V1, (32, 32)), 12, 6)
