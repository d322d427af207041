"""timm's ViT: how it is built, its fixed sin-cos positions, and the tap on its attention (Eq. 6)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from evomask.models.timm_encoder import build_timm


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """A ViT of timm, by name, and what differs from it.

    Attributes:
        name: a timm ViT, for its width, depth and heads: vit_tiny_patch16_224, vit_small_..., vit_huge_patch14_224.
        image_size: height and width in pixels; the patch size divides both.
        patch_size: side of a patch in pixels.
        in_chans: channels of an image.
        width: embedding dimension (None: as named).
        depth: number of blocks (None: as named).
        heads: attention heads (None: as named).
        class_token: whether there is one.
        registers: number of register tokens.
        qk_norm: whether queries and keys are normalised.
        drop_path: stochastic depth rate of the last block.
    """

    name: str = "vit_small_patch16_224"
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    in_chans: int = 3
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    class_token: bool = True
    registers: int = 0
    qk_norm: bool = False
    drop_path: float = 0.0

    def __post_init__(self):
        for name in ("patch_size", "in_chans", "width", "depth", "heads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"a ViT's {name} must be at least 1, not {value}")
        if self.registers < 0 or not 0 <= self.drop_path < 1:
            raise ValueError(f"registers must be 0 or more and drop_path in [0, 1), not {self.registers} and {self.drop_path}")

    def timm_arguments(self) -> dict[str, Any]:
        """The keyword arguments with which `timm.create_model(name, ...)` makes this ViT."""
        arguments = {
            "img_size": list(self.image_size),
            "patch_size": self.patch_size,
            "in_chans": self.in_chans,
            "num_classes": 0,
            "class_token": self.class_token,
            "global_pool": "token" if self.class_token else "",
            "reg_tokens": self.registers,
            "qk_norm": self.qk_norm,
        }
        optional = {"embed_dim": self.width, "depth": self.depth, "num_heads": self.heads}
        return arguments | {name: value for name, value in optional.items() if value is not None}

    def build(self) -> VisionTransformer:
        """The same as `build_vit`."""
        return build_vit(self)


def build_vit(config: ViTConfig) -> VisionTransformer:
    """The timm model itself, with timm's own initial weights.

    Raises:
        ValueError: no such model in timm, not a plain ViT, or the patch size does not divide the image size.
    """
    return check_plain_vit(build_timm(config, "plain ViT", "vit_*", "ViTs"))


def check_plain_vit(encoder: nn.Module) -> VisionTransformer:
    """The same module, where it is a ViT whose blocks the attention tap knows.

    Raises:
        ValueError: it is another architecture, or a ViT with other blocks, gated attention, another patch embedding, positions
            of changing size, or patches that do not divide the image.
    """
    if type(encoder) is not VisionTransformer:  # timm's subclasses have further tokens
        raise ValueError(f"expected a timm VisionTransformer, not a {type(encoder).__name__}")
    for block in encoder.blocks:
        attention = getattr(block, "attn", None)
        if type(block) is not Block or type(attention) is not Attention or getattr(attention, "gate", None) is not None:
            raise ValueError(f"attention is tapped in timm's plain pre-norm ViT blocks only, not in {type(block).__name__}")
    if encoder.dynamic_img_size or encoder.pos_embed is None:
        raise ValueError("the ViT needs absolute positions of one size: build it without dynamic_img_size, with pos_embed")
    if type(encoder.patch_embed) is not PatchEmbed:
        raise ValueError(f"the image must be cut into patches as it is, not by timm's {type(encoder.patch_embed).__name__}")
    check_patches_divide(encoder.patch_embed)
    return encoder


def check_patches_divide(embedding: Any) -> None:
    """Raise a ValueError where an image is not cut into whole patches."""
    (height, width), (patch_height, patch_width) = embedding.img_size, embedding.patch_size
    if height % patch_height or width % patch_width:
        raise ValueError(f"patches of {patch_height} x {patch_width} px do not divide an image of {height} x {width} px")


def absolute_positions(encoder: VisionTransformer) -> nn.Parameter:
    """(1, N, D) or, where class token and registers have positions too, (1, prefix + N, D)."""
    assert encoder.pos_embed is not None, "see check_plain_vit"
    return encoder.pos_embed


def sincos_positions(grid: tuple[int, int], width: int) -> Tensor:
    """(H * W, width) float32, fixed 2-D sine-cosine positions as in MAE: quarters sin x, cos x, sin y, cos y.

    Raises:
        ValueError: the width is no multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sin-cos positions need a width that is a multiple of 4, not {width}")
    frequency = 10_000.0 ** -(torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    row, column = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    phase_x, phase_y = column.flatten().outer(frequency), row.flatten().outer(frequency)
    return torch.cat((phase_x.sin(), phase_x.cos(), phase_y.sin(), phase_y.cos()), dim=1).float()


def fix_sincos_positions(encoder: VisionTransformer) -> None:
    """Fill a ViT's positions with sines and cosines, zero for class token and registers, and keep them from training."""
    patches_ND = sincos_positions(encoder.patch_embed.grid_size, encoder.embed_dim)
    positions = absolute_positions(encoder).requires_grad_(False)
    positions.zero_()
    positions[0, -len(patches_ND) :] = patches_ND


def embed_patches(encoder: VisionTransformer, images: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, D), patches with their positions, without class token and registers."""
    tokens_BND = encoder.patch_embed(images)
    return tokens_BND + absolute_positions(encoder)[:, -tokens_BND.shape[1] :]


def with_prefix(encoder: VisionTransformer, tokens_BND: Tensor) -> Tensor:
    """(B, n, D) any of the embedded patches -> (B, prefix + n, D), class token and registers first: what block 1 is given."""
    learnt: list[Tensor] = [token for token in (encoder.cls_token, encoder.reg_token) if token is not None]
    if learnt:
        prefix_1PD = torch.cat(learnt, dim=1)
        if not encoder.no_embed_class:
            prefix_1PD = prefix_1PD + absolute_positions(encoder)[:, : prefix_1PD.shape[1]]
        tokens_BND = torch.cat((prefix_1PD.expand(len(tokens_BND), -1, -1).to(tokens_BND.dtype), tokens_BND), dim=1)
    return encoder.norm_pre(tokens_BND)


def attention_maps(encoder: VisionTransformer, tokens_BND: Tensor, blocks: int) -> Iterator[Tensor]:
    """Yield the softmax attention of the first `blocks` blocks, one block at a time.

    Stochastic depth and dropout in attention are left out. Nothing after the queries and keys of the last block is run.

    Args:
        encoder: a plain ViT, see `check_plain_vit`.
        tokens_BND: all patches, from `embed_patches`, or some of them.
        blocks: how many blocks; a ViT that has fewer gives all it has.

    Yields:
        (B, heads, L, L), row: query, column: key; class token and registers first, then the N patches.
    """
    x_BLD = with_prefix(encoder, tokens_BND)
    tapped: Any = encoder.blocks[:blocks]
    for block in tapped[:-1]:
        attention = block.attn
        query, key, value = _project(attention, block.norm1(x_BLD), 3)
        attention_BHLL = _softmax_attention(attention, query, key)
        yield attention_BHLL
        mixed_BLD = attention.norm((attention_BHLL.to(value.dtype) @ value).transpose(1, 2).flatten(2))
        del attention_BHLL  # the largest tensor there is: not two blocks' at a time
        x_BLD = x_BLD + block.ls1(attention.proj(mixed_BLD))
        x_BLD = x_BLD + block.ls2(block.mlp(block.norm2(x_BLD)))
    for block in tapped[-1:]:
        yield _softmax_attention(block.attn, *_project(block.attn, block.norm1(x_BLD), 2))


def _project(attention: Any, x_BLD: Tensor, parts: int) -> tuple[Tensor, ...]:
    """The first `parts` of query, key and value, each (B, heads, L, head width)."""
    weight, bias = attention.qkv.weight[: parts * attention.attn_dim], attention.qkv.bias
    projected = functional.linear(x_BLD, weight, None if bias is None else bias[: parts * attention.attn_dim])
    return projected.unflatten(-1, (parts, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _softmax_attention(attention: Any, query: Tensor, key: Tensor) -> Tensor:
    return (attention.q_norm(query) * attention.scale @ attention.k_norm(key).mT).softmax(dim=-1)


@torch.no_grad()
def mean_patch_attention(encoder: VisionTransformer, tokens_BND: Tensor, blocks: int, stride: int = 1) -> Tensor:
    """The paper's A (Eq. 6): attention between patches, mean over all heads and the first `blocks` blocks.

    Args:
        encoder: a plain ViT, see `check_plain_vit`.
        tokens_BND: all patches, from `embed_patches`.
        blocks: how many blocks; a ViT that has fewer gives all it has.
        stride: look only at every so manieth row and column of patches, and carry their attention to the patches between
            them. Not in the paper.

    Returns:
        (B, N, N) float32. Rows sum to less than 1 where class token or registers took a share.
    """
    grid = encoder.patch_embed.grid_size
    seen_BnD = tokens_BND.unflatten(1, grid)[:, ::stride, ::stride].flatten(1, 2)
    return mean_over_blocks(attention_maps(encoder, seen_BnD, blocks), encoder.num_prefix_tokens, grid, stride)


def mean_over_blocks(maps: Iterator[Tensor], prefix: int, grid: tuple[int, int], stride: int) -> Tensor:
    """The mean of attention maps, carried from the patches that were looked at to all of them.

    Args:
        maps: (B, heads, L, L), `prefix` tokens first, then every `stride`-th row and column of patches.
        prefix: tokens that are no patches.
        grid: rows and columns of patches, H x W = N.
        stride: see `mean_patch_attention`.

    Returns:
        (B, N, N) float32.
    """
    total_Bnn, count = None, 0
    for attention_BHLL in maps:
        patches_Bnn = attention_BHLL.mean(dim=1, dtype=torch.float32)[:, prefix:, prefix:]
        del attention_BHLL
        total_Bnn = patches_Bnn if total_Bnn is None else total_Bnn + patches_Bnn
        count += 1
    assert total_Bnn is not None, "a ViT has at least one block"
    mean_Bnn = total_Bnn / count
    if stride == 1:
        return mean_Bnn
    rows_Hh, columns_Ww = (_interpolation(length, stride, mean_Bnn.device) for length in grid)
    spread_Nn = torch.kron(rows_Hh, columns_Ww)
    with torch.autocast(mean_Bnn.device.type, enabled=False):  # bfloat16 would make equal what is close
        return spread_Nn @ mean_Bnn @ spread_Nn.T


def _interpolation(length: int, stride: int, device: torch.device) -> Tensor:
    """(length, kept) linear interpolation of values at 0, stride, 2 * stride, ... at each of 0 to length - 1."""
    kept = len(range(0, length, stride))
    place_L = (torch.arange(length, device=device) / stride).clamp(max=kept - 1)
    return (1 - (place_L.unsqueeze(1) - torch.arange(kept, device=device)).abs()).clamp(min=0)
