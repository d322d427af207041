"""The attention of single heads: of chosen patches to all others, and of the class token to the patches."""

from collections.abc import Sequence

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from evomask.models.vit import attention_maps, embed_patches

Place = tuple[int, int]


def patch_attention(vit: VisionTransformer, images: Tensor, queries: Sequence[Place], block: int | None = None) -> Tensor:
    """Where chosen patches look, head by head (the paper's Fig. 8).

    Args:
        vit: a plain ViT in evaluation mode, see `check_plain_vit`.
        images: (B, C, H, W) normalised, on its device.
        queries: (row, column) of the patches that look, the same in all images.
        block: the how manieth block, from 1; None: the last.

    Returns:
        (B, queries, heads, N), what each patch gets; sums to less than 1 where class token or registers took a share.

    Raises:
        ValueError: a query outside the grid, or no such block.
    """
    rows, columns = vit.patch_embed.grid_size
    for row, column in queries:
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(f"patch ({row}, {column}) lies outside the grid of {rows} x {columns} patches")
    prefix = vit.num_prefix_tokens
    numbers = [prefix + row * columns + column for row, column in queries]
    return _attention_of(vit, images, block)[:, :, numbers, prefix:].transpose(1, 2)


def class_attention(vit: VisionTransformer, images: Tensor, block: int | None = None) -> Tensor:
    """What the class token looks at, head by head (the paper's Fig. 3a).

    Args:
        vit: see `patch_attention`.
        images: likewise.
        block: the how manieth block, from 1; None: the last.

    Returns:
        (B, heads, N), what each patch gets.

    Raises:
        ValueError: the model has no class token, or no such block.
    """
    if vit.cls_token is None:
        raise ValueError("the model has no class token that could look anywhere")
    return _attention_of(vit, images, block)[:, :, 0, vit.num_prefix_tokens :]


@torch.no_grad()
def _attention_of(vit: VisionTransformer, images: Tensor, block: int | None) -> Tensor:
    """(B, heads, L, L) of one block."""
    block = len(vit.blocks) if block is None else block
    if not 1 <= block <= len(vit.blocks):
        raise ValueError(f"the model has blocks 1 to {len(vit.blocks)}, but no block {block}")
    *_, last_BHLL = attention_maps(vit, embed_patches(vit, images), block)
    return last_BHLL.float()
