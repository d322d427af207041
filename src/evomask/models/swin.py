"""timm's Swin, v1 and v2: how it is built, and the tap on its attention.

The paper applies its masks to Swin without saying how attention within windows becomes a relation between all patches (Eq. 6).
Here is what evomask does, and why.

The leaves of the trees, and the places of the masks, are square cells of the image, by default the tokens of the last stage
that has at least 12 of them a side: 14 x 14 at 224 px, as many as the paper's ViT has patches. Tokens themselves cannot be the
leaves: there are 3,136 in the first stage, and from stage to stage other ones.

Of each of the first blocks, the attention of a window (the softmax that timm computes, with shift, its mask and the position
bias, mean over heads) is written into the relation between all tokens of the image. A pair that is in no window together, or
in two parts that the shift has brought into one window, has similarity 0: the block lets nothing pass between them. What a
token gives to padding is lost, as a ViT's attention to its class token is.

The similarity of two cells is the mean of that relation over all pairs of their points, each point with the attention of the
token that it lies in; so it holds for cells of many tokens, for tokens of many cells, and where they divide one another badly.
It is a mean, not a sum, over the keys: a token spreads its attention over the tokens of one window, as many in all stages, so
that a mean has one scale in all stages, where a sum would favour the stages in which a cell has more tokens. The blocks' means
are then averaged, as in the paper.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models import swin_transformer as v1
from timm.models import swin_transformer_v2 as v2
from timm.models.swin_transformer import SwinTransformer, window_partition, window_reverse
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.nn import functional

from evomask.models.timm_encoder import build_timm
from evomask.models.vit import check_patches_divide

LEAST_CELLS = 12
"""A side; cells are by default the tokens of the last stage that has so many."""


@dataclass(frozen=True, kw_only=True)
class SwinConfig:
    """A Swin of timm, by name, and what differs from it.

    Attributes:
        name: a timm Swin, v1 or v2: swin_tiny_patch4_window7_224, swin_base_..., swinv2_tiny_window8_256, ...
        image_size: height and width in pixels; the patch size divides both.
        patch_size: side of a patch in pixels, a token of the first stage.
        in_chans: channels of an image.
        window: side of a window in tokens (None: as named).
        width: embedding dimension of the first stage, which every further stage doubles (None: as named).
        depths: number of blocks, stage by stage (None: as named).
        heads: attention heads, stage by stage (None: as named).
        drop_path: stochastic depth rate of the last block.
    """

    name: str = "swin_tiny_patch4_window7_224"
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 4
    in_chans: int = 3
    window: int | None = None
    width: int | None = None
    depths: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    drop_path: float = 0.0

    def __post_init__(self):
        numbers = {"patch_size": self.patch_size, "in_chans": self.in_chans, "window": self.window, "width": self.width}
        numbers |= {"depths": min(self.depths or (1,)), "heads": min(self.heads or (1,))}
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f"a Swin's {name} must be at least 1, not {value}")
        if self.depths is not None and self.heads is not None and len(self.depths) != len(self.heads):
            raise ValueError(f"a Swin needs as many depths as heads, not {len(self.depths)} and {len(self.heads)}")
        if not 0 <= self.drop_path < 1:
            raise ValueError(f"drop_path must lie in [0, 1), not {self.drop_path}")

    def timm_arguments(self) -> dict[str, Any]:
        """The keyword arguments with which `timm.create_model(name, ...)` makes this Swin."""
        arguments = {
            "img_size": list(self.image_size),
            "patch_size": self.patch_size,
            "in_chans": self.in_chans,
            "num_classes": 0,
        }
        optional = {"window_size": self.window, "embed_dim": self.width, "depths": self.depths, "num_heads": self.heads}
        return arguments | {name: value for name, value in optional.items() if value is not None}

    def build(self) -> "Swin":
        """The timm model itself, with timm's own initial weights.

        Raises:
            ValueError: no such model in timm, no Swin of a kind that is known, or sizes that do not fit each other.
        """
        return check_swin(build_timm(self, "Swin", "swin*", "Swins"))


Swin: TypeAlias = Any  # SwinTransformer | SwinTransformerV2, whose parts timm gives no types


def check_swin(encoder: nn.Module) -> Swin:
    """The same module, where it is a Swin whose blocks the attention tap knows.

    Raises:
        ValueError: it is another architecture, or for images of changing size, or its patches do not divide the image.
    """
    known = {
        SwinTransformer: (v1.SwinTransformerBlock, v1.WindowAttention),
        SwinTransformerV2: (v2.SwinTransformerV2Block, v2.WindowAttention),
    }
    if type(encoder) not in known:
        raise ValueError(f"expected a timm SwinTransformer or SwinTransformerV2, not a {type(encoder).__name__}")
    swin: Swin = encoder
    for stage in swin.layers:
        if any((type(block), type(block.attn)) != known[type(encoder)] for block in stage.blocks):
            raise ValueError("attention is tapped in timm's plain Swin blocks only")
        heads, width = stage.blocks[0].attn.num_heads, stage.blocks[0].dim
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
    if type(swin.patch_embed) is not PatchEmbed:
        raise ValueError(f"the image must be cut into patches as it is, not by timm's {type(swin.patch_embed).__name__}")
    embedding: Any = swin.patch_embed
    if not embedding.strict_img_size:
        raise ValueError("the Swin must be for images of one size: build it without strict_img_size=False")
    check_patches_divide(embedding)
    return swin


def default_cell(encoder: Swin) -> int:
    """Side in pixels: of a token of the last stage that has LEAST_CELLS a side and divides the image, or of the first."""
    height, width = encoder.patch_embed.img_size
    patch = encoder.patch_embed.patch_size[0]
    sides = [patch * 2**stage for stage in range(encoder.num_layers)]
    fitting = [side for side in sides if height % side == width % side == 0 and min(height, width) // side >= LEAST_CELLS]
    return (fitting or [patch])[-1]


class CellAttention(nn.Module):
    """The attention of a Swin's first blocks, carried to pairs of cells as the head of this file says.

    It holds no weights, only where the tokens of each window lie; nothing of it goes into `state_dict`.

    Args:
        encoder: a Swin, see `check_swin`.
        cell: side of a cell in pixels.
        blocks: how many blocks; a Swin that has fewer gives all it has.

    Raises:
        ValueError: the cell does not divide the image.
    """

    def __init__(self, encoder: Swin, cell: int, blocks: int):
        super().__init__()
        height, width = encoder.patch_embed.img_size
        if cell < 1 or height % cell or width % cell:
            raise ValueError(f"cells of {cell} px do not divide an image of {height} x {width} px")
        self.grid = (height // cell, width // cell)
        patch = encoder.patch_embed.patch_size[0]
        poolings = []
        for number, stage in enumerate(encoder.layers):
            sides = (patch * 2**number, cell)
            poolings += [WindowPooling(b.input_resolution, b.window_size, b.shift_size, self.grid, sides) for b in stage.blocks]
        self.poolings = nn.ModuleList(poolings[:blocks])

    @torch.no_grad()
    def forward(self, encoder: Swin, tokens_BHWD: Tensor) -> Tensor:
        """(B, rows, columns, D) from `encoder.patch_embed` -> (B, N, N) float32, mean over heads and blocks."""
        total_BNN = None
        for attention_BNN in self.maps(encoder, tokens_BHWD):
            total_BNN = attention_BNN if total_BNN is None else total_BNN + attention_BNN
        assert total_BNN is not None, "a Swin has at least one block"
        return total_BNN / len(self.poolings)

    def maps(self, encoder: Swin, tokens_BHWD: Tensor) -> Iterator[Tensor]:
        """Yield (B, N, N) float32 of each block, mean over heads; row: query, column: key."""
        windows = window_attention(encoder, tokens_BHWD, len(self.poolings))
        for pooling, attention_BWHnn in zip(self.poolings, windows, strict=True):
            yield pooling(attention_BWHnn.mean(dim=2, dtype=torch.float32))


class WindowPooling(nn.Module):
    """(B, W, n, n), attention in the W windows of one block -> (B, N, N), its mean over the points of each pair of cells.

    A window is pooled to the few cells that it touches, and these are gathered pair by pair: the relation between all tokens,
    of 3,136 x 3,136 in the first stage at 224 px, is never there. Gathered rather than scattered, so that sums have one order
    and the same attention gives the same trees on a GPU too.

    Args:
        tokens: rows and columns of tokens.
        window: rows and columns of a window.
        shift: by how many rows and columns the windows are shifted.
        cells: rows and columns of cells.
        sides: of a token and of a cell in pixels.
    """

    share_WKn: Tensor
    places_MP: Tensor

    def __init__(
        self,
        tokens: tuple[int, int],
        window: tuple[int, int],
        shift: tuple[int, int],
        cells: tuple[int, int],
        sides: tuple[int, int],
    ):
        super().__init__()
        self.cells = cells[0] * cells[1]
        (row_cells, row_share), (column_cells, column_share) = (
            _along_one_side(*counts, *sides) for counts in zip(tokens, window, shift, cells, strict=True)
        )
        # A window is a range of rows times a range of columns, and so are the cells that it touches.
        share_WKn = torch.einsum("ikr,jlc->ijklrc", row_share, column_share).flatten(4).flatten(2, 3).flatten(0, 1)
        cell_WK = (row_cells[:, None, :, None] * cells[1] + column_cells[None, :, None, :]).flatten(2).flatten(0, 1)
        self.register_buffer("share_WKn", share_WKn, persistent=False)
        self.register_buffer("places_MP", self._places(cell_WK, share_WKn.sum(dim=-1) > 0), persistent=False)

    def _places(self, cell_WK: Tensor, touched_WK: Tensor) -> Tensor:
        """(M, N * N) for each pair of cells, where in the flat (W * K * K) it is found; the place behind the last holds 0."""
        pair_WKK = cell_WK.unsqueeze(2) * self.cells + cell_WK.unsqueeze(1)
        found = (touched_WK.unsqueeze(2) & touched_WK.unsqueeze(1)).flatten().nonzero().squeeze(1)
        pair, order = pair_WKK.flatten()[found].sort(stable=True)
        count_P = torch.bincount(pair, minlength=self.cells**2)
        turn = torch.arange(len(pair)) - (count_P.cumsum(0) - count_P)[pair]  # the how manieth of its pair
        places_MP = torch.full((int(count_P.max()), self.cells**2), pair_WKK.numel())
        places_MP[turn, pair] = found[order]
        return places_MP

    def forward(self, attention_BWnn: Tensor) -> Tensor:
        """See the class."""
        with torch.autocast(attention_BWnn.device.type, enabled=False):  # bfloat16 would make equal what is close
            pooled_BWKK = self.share_WKn @ attention_BWnn @ self.share_WKn.mT
        pooled_BX = functional.pad(pooled_BWKK.flatten(1), (0, 1))
        total_BP = pooled_BX[:, self.places_MP[0]]
        for places_P in self.places_MP[1:]:
            total_BP = total_BP + pooled_BX[:, places_P]
        return total_BP.unflatten(1, (self.cells, self.cells))


def _along_one_side(tokens: int, window: int, shift: int, cells: int, token_side: int, cell_side: int) -> tuple[Tensor, Tensor]:
    """Which cells each window touches along one side of the image, and what share of a cell each of its tokens is.

    As timm does: tokens are rolled by the shift, then padded to whole windows.

    Returns:
        (windows, K) long cells, those that are touched first; (windows, K, window) shares of theirs, 0 for padding.
    """
    start_T, start_C1 = torch.arange(tokens) * token_side, (torch.arange(cells) * cell_side).unsqueeze(1)
    end_CT = torch.minimum(start_T + token_side, start_C1 + cell_side)
    overlap_CT = (end_CT - torch.maximum(start_T, start_C1)).clamp(min=0)
    overlap_CP = functional.pad(overlap_CT.roll(-shift, dims=1), (0, -tokens % window))
    overlap_WCn = overlap_CP.unflatten(1, (-1, window)).transpose(0, 1)
    touched_WC = overlap_WCn.sum(dim=-1) > 0
    most = int(touched_WC.sum(dim=1).max())
    cell_WK = touched_WC.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]
    return cell_WK, overlap_WCn.gather(1, cell_WK.unsqueeze(-1).expand(-1, -1, window)) / cell_side


def window_attention(encoder: Swin, tokens_BHWD: Tensor, blocks: int) -> Iterator[Tensor]:
    """Yield the softmax attention of the first `blocks` blocks, one block at a time.

    Stochastic depth is left out. Nothing after the queries and keys of the last block is run.

    Args:
        encoder: a Swin, see `check_swin`.
        tokens_BHWD: all patches, from `encoder.patch_embed`.
        blocks: how many blocks; a Swin that has fewer gives all it has.

    Yields:
        (B, windows, heads, n, n), row: query, column: key; the windows row by row of the image as the block has shifted and
        padded it.
    """
    x_BHWD, left = tokens_BHWD, blocks
    for stage in encoder.layers:
        tapped = stage.blocks[:left]
        if not len(tapped):
            return
        x_BHWD = stage.downsample(x_BHWD)
        for block in tapped:
            left -= 1
            normed = block.norm1(x_BHWD) if isinstance(encoder, SwinTransformer) else x_BHWD
            attention, value = _attend(block, _into_windows(block, normed))
            yield attention.unflatten(0, (len(x_BHWD), -1))
            if left == 0:
                return
            mixed = block.attn.proj((attention.to(value.dtype) @ value).transpose(1, 2).flatten(2))
            del attention, value  # the largest tensors there are: not two blocks' at a time
            mixed_BHWD = _out_of_windows(block, mixed, x_BHWD.shape[1:3])
            if isinstance(encoder, SwinTransformer):
                x_BHWD = x_BHWD + mixed_BHWD
                x_BHWD = x_BHWD + block.mlp(block.norm2(x_BHWD))
            else:
                x_BHWD = x_BHWD + block.norm1(mixed_BHWD)
                x_BHWD = x_BHWD + block.norm2(block.mlp(x_BHWD))


def _into_windows(block: Any, x_BHWD: Tensor) -> Tensor:
    """(B, H, W, D) -> (B * windows, n, D), shifted and padded with zeros as timm does."""
    (rows, columns), (height, width) = x_BHWD.shape[1:3], block.window_size
    shifted = x_BHWD.roll((-block.shift_size[0], -block.shift_size[1]), dims=(1, 2))
    padded = functional.pad(shifted, (0, 0, 0, -columns % width, 0, -rows % height))
    return window_partition(padded, (height, width)).flatten(1, 2)


def _out_of_windows(block: Any, x_XnD: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """The inverse of `_into_windows`; what was padding is cut off."""
    (rows, columns), (height, width) = size, block.window_size
    windows = x_XnD.unflatten(1, (height, width))
    padded = window_reverse(windows, (height, width), rows + -rows % height, columns + -columns % width)
    return padded[:, :rows, :columns].roll(block.shift_size, dims=(1, 2))


def _attend(block: Any, x_XnD: Tensor) -> tuple[Tensor, Tensor]:
    """The attention (X, heads, n, n) in windows, and their values (X, heads, n, head width)."""
    attn = block.attn
    if isinstance(attn, v1.WindowAttention):
        query, key, value = _by_head(functional.linear(x_XnD, attn.qkv.weight, attn.qkv.bias), attn.num_heads)
        logits = query * attn.scale @ key.mT + _position_bias(attn, attn.relative_position_bias_table)
    else:
        bias = None if attn.q_bias is None else torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
        query, key, value = _by_head(functional.linear(x_XnD, attn.qkv.weight, bias), attn.num_heads)
        scale = attn.logit_scale.clamp(max=math.log(100)).exp()
        logits = functional.normalize(query, dim=-1) @ functional.normalize(key, dim=-1).mT * scale
        logits = logits + 16 * _position_bias(attn, attn.cpb_mlp(attn.relative_coords_table).flatten(0, 2)).sigmoid()
    if block.attn_mask is not None:
        apart_Wnn = block.attn_mask < 0  # timm adds -100 there: as good as nothing, but not nothing
        logits = logits.unflatten(0, (-1, len(apart_Wnn))).masked_fill(apart_Wnn.unsqueeze(1), -math.inf).flatten(0, 1)
    return logits.softmax(dim=-1), value


def _by_head(qkv_XnD: Tensor, heads: int) -> tuple[Tensor, ...]:
    return qkv_XnD.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _position_bias(attn: Any, table: Tensor) -> Tensor:
    """(heads, n, n) of a table by relative position."""
    return table[attn.relative_position_index].permute(2, 0, 1)
