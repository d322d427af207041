"""The attention between patches of an encoder, whatever its architecture: a kind of encoder is a line in TAPS."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evomask.models import beit_encoder
from evomask.models.swin import CellAttention, check_swin, default_cell
from evomask.models.vit import attention_maps, check_plain_vit, embed_patches


@dataclass(frozen=True, eq=False)
class AttentionTap:
    """How an encoder is asked for its attention.

    Attributes:
        grid: rows and columns of patches, H x W = N; of Swin, of cells, see `swin.py`.
        maps: (B, C, H, W) normalised images and a number -> yields (B, N, N) of each of so many first blocks, or of all there
            are, mean over heads, patches only.
    """

    grid: tuple[int, int]
    maps: Callable[[Tensor, int], Iterator[Tensor]]

    @torch.no_grad()
    def by_block(self, images: Tensor, blocks: int) -> Tensor:
        """(B, C, H, W) normalised images -> (B, blocks, N, N), row: query, column: key."""
        return torch.stack(list(self.maps(images, blocks)), dim=1)


def attention_tap(encoder: nn.Module, cell: int | None = None) -> AttentionTap:
    """How this encoder of timm is asked.

    Args:
        encoder: the timm model.
        cell: of a Swin: side in pixels of the cells that attention is carried to. None: see `default_cell`.

    Raises:
        ValueError: it is of none of TAPS, or differs from what is known of its kind.
    """
    if type(encoder) not in TAPS:
        known = ", ".join(kind.__name__ for kind in TAPS)
        raise ValueError(f"expected one of timm's {known}, not a {type(encoder).__name__}")
    return TAPS[type(encoder)](encoder, cell)


def _vit(encoder: nn.Module, _: int | None) -> AttentionTap:
    vit = check_plain_vit(encoder)

    def maps(images: Tensor, blocks: int) -> Iterator[Tensor]:
        prefix = vit.num_prefix_tokens
        for attention_BHLL in attention_maps(vit, embed_patches(vit, images), blocks):
            yield attention_BHLL.mean(dim=1, dtype=torch.float32)[:, prefix:, prefix:]

    return AttentionTap(vit.patch_embed.grid_size, maps)


def _beit(encoder: nn.Module, _: int | None) -> AttentionTap:
    beit = beit_encoder.check_beit(encoder)

    def maps(images: Tensor, blocks: int) -> Iterator[Tensor]:
        for attention_BHLL in beit_encoder.attention_maps(beit, beit.patch_embed(images), blocks):
            yield attention_BHLL.mean(dim=1, dtype=torch.float32)[:, 1:, 1:]

    return AttentionTap(beit.patch_embed.grid_size, maps)


def _swin(encoder: nn.Module, cell: int | None) -> AttentionTap:
    swin: Any = check_swin(encoder)
    side = default_cell(swin) if cell is None else cell

    def maps(images: Tensor, blocks: int) -> Iterator[Tensor]:
        cells = CellAttention(swin, side, blocks).to(images.device)
        return cells.maps(swin, swin.patch_embed(images))

    height, width = swin.patch_embed.img_size
    return AttentionTap((height // side, width // side), maps)


TAPS: dict[type[nn.Module], Callable[[nn.Module, int | None], AttentionTap]] = {
    VisionTransformer: _vit,
    Beit: _beit,
    SwinTransformer: _swin,
    SwinTransformerV2: _swin,
}
"""Kinds of timm's encoders -> a function that makes the tap of one."""
