"""timm's BEiT: how it is built, and the tap on its attention (Eq. 6). It has no positions but in the bias of its attention."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.layers.patch_embed import PatchEmbed
from timm.models.beit import Attention, Beit, Block
from torch import Tensor, nn
from torch.nn import functional

from evomask.models.timm_encoder import build_timm
from evomask.models.vit import check_patches_divide, mean_over_blocks


@dataclass(frozen=True, kw_only=True)
class BEiTEncoderConfig:
    """A BEiT of timm, by name, and what differs from it.

    Attributes:
        name: a timm BEiT, for its depth: beit_base_patch16_224, beit_large_...
        image_size: height and width in pixels; the patch size divides both.
        patch_size: side of a patch in pixels.
        in_chans: channels of an image.
        width: embedding dimension (None: as named).
        depth: number of blocks (None: as named).
        heads: attention heads (None: as named).
        position_bias: whether all blocks have one table of relative positions, as microsoft/unilm's pretraining, or each its
            own, as timm and as fine-tuning there.
        layer_scale: what the scale of each layer's output begins at, 0: there is none.
        drop_path: stochastic depth rate of the last block.
    """

    name: str = "beit_base_patch16_224"
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    in_chans: int = 3
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    position_bias: Literal["shared", "per_block"] = "shared"
    layer_scale: float = 0.1
    drop_path: float = 0.0

    def __post_init__(self):
        for name in ("patch_size", "in_chans", "width", "depth", "heads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"a BEiT's {name} must be at least 1, not {value}")
        if self.layer_scale < 0 or not 0 <= self.drop_path < 1:
            scale, rate = self.layer_scale, self.drop_path
            raise ValueError(f"layer_scale must be 0 or more and drop_path in [0, 1), not {scale} and {rate}")

    def timm_arguments(self) -> dict[str, Any]:
        """The keyword arguments with which `timm.create_model(name, ...)` makes this BEiT."""
        arguments = {
            "img_size": list(self.image_size),
            "patch_size": self.patch_size,
            "in_chans": self.in_chans,
            "num_classes": 0,
            "global_pool": "token",  # with the mean, timm would norm it instead of the tokens
            "use_rel_pos_bias": self.position_bias == "per_block",
            "use_shared_rel_pos_bias": self.position_bias == "shared",
            "init_values": self.layer_scale,
        }
        optional = {"embed_dim": self.width, "depth": self.depth, "num_heads": self.heads}
        return arguments | {name: value for name, value in optional.items() if value is not None}

    def build(self) -> Beit:
        """The timm model itself, with timm's own initial weights.

        Raises:
            ValueError: no such model in timm, no BEiT, or sizes that do not fit each other.
        """
        return check_beit(build_timm(self, "BEiT", "beit*", "BEiTs"))


def check_beit(encoder: nn.Module) -> Beit:
    """The same module, where it is a BEiT whose blocks the attention tap knows.

    Raises:
        ValueError: it is another architecture, its heads do not divide its width, or its patches do not divide the image.
    """
    if type(encoder) is not Beit:
        raise ValueError(f"expected a timm Beit, not a {type(encoder).__name__}")
    blocks: Any = encoder.blocks
    if any((type(block), type(block.attn)) != (Block, Attention) for block in blocks):
        raise ValueError("attention is tapped in timm's plain BEiT blocks only")
    if encoder.embed_dim % blocks[0].attn.num_heads:
        raise ValueError(f"{blocks[0].attn.num_heads} heads do not divide a width of {encoder.embed_dim}")
    if type(encoder.patch_embed) is not PatchEmbed:
        raise ValueError(f"the image must be cut into patches as it is, not by timm's {type(encoder.patch_embed).__name__}")
    check_patches_divide(encoder.patch_embed)
    return encoder


def with_class_token(encoder: Beit, tokens_BND: Tensor, places: Tensor | None = None) -> Tensor:
    """(B, n, D) embedded patches -> (B, 1 + n, D), class token first and positions, where there are any, added.

    Args:
        encoder: a BEiT.
        tokens_BND: all patches, or those of `places`.
        places: (n,) long, in ascending order.
    """
    class_token: Tensor = encoder.cls_token
    x_BLD = torch.cat((class_token.expand(len(tokens_BND), -1, -1).to(tokens_BND.dtype), tokens_BND), dim=1)
    if encoder.pos_embed is None:
        return x_BLD
    positions: Tensor = encoder.pos_embed
    return x_BLD + (positions if places is None else positions[:, _after_class_token(places)])


def attention_maps(encoder: Beit, tokens_BND: Tensor, blocks: int, places: Tensor | None = None) -> Iterator[Tensor]:
    """Yield the softmax attention of the first `blocks` blocks, one block at a time, the position bias included.

    Stochastic depth is left out. Nothing after the queries and keys of the last block is run.

    Args:
        encoder: a BEiT, see `check_beit`.
        tokens_BND: embedded patches without positions, all or those of `places`.
        blocks: how many blocks; a BEiT that has fewer gives all it has.
        places: (n,) long, in ascending order: which patches these are. None: all.

    Yields:
        (B, heads, 1 + n, 1 + n), row: query, column: key; the class token first.
    """
    shared_HLL = None if encoder.rel_pos_bias is None else _at(encoder.rel_pos_bias(), places)
    x_BLD = with_class_token(encoder, tokens_BND, places)
    tapped: Any = encoder.blocks[:blocks]
    for number, block in enumerate(tapped):
        attention = block.attn
        bias_HLL = shared_HLL
        if attention.relative_position_bias_table is not None:
            own_HLL = _at(attention._get_rel_pos_bias().squeeze(0), places)
            bias_HLL = own_HLL if bias_HLL is None else bias_HLL + own_HLL
        last = number == len(tapped) - 1
        query, key, *value = _project(attention, block.norm1(x_BLD), 2 if last else 3)
        logits_BHLL = query * attention.scale @ key.mT
        attention_BHLL = (logits_BHLL if bias_HLL is None else logits_BHLL + bias_HLL).softmax(dim=-1)
        yield attention_BHLL
        if last:
            return
        mixed_BLD = (attention_BHLL.to(value[0].dtype) @ value[0]).transpose(1, 2).flatten(2)
        del attention_BHLL, logits_BHLL  # the largest tensors there are: not two blocks' at a time
        x_BLD = x_BLD + _scaled(attention.proj(mixed_BLD), block.gamma_1)
        x_BLD = x_BLD + _scaled(block.mlp(block.norm2(x_BLD)), block.gamma_2)


def _project(attention: Any, x_BLD: Tensor, parts: int) -> tuple[Tensor, ...]:
    """The first `parts` of query, key and value, each (B, heads, L, head width)."""
    weight, bias = attention.qkv.weight, None
    if attention.q_bias is not None:
        bias = torch.cat((attention.q_bias, attention.k_bias, attention.v_bias)[:parts])
    projected = functional.linear(x_BLD, weight[: parts * len(weight) // 3], bias)
    return projected.unflatten(-1, (parts, attention.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _at(bias_HLL: Tensor, places: Tensor | None) -> Tensor:
    """The bias between the class token and some of the patches, of that between it and all."""
    if places is None:
        return bias_HLL
    kept = _after_class_token(places)
    return bias_HLL[:, kept][:, :, kept]


def _after_class_token(places: Tensor) -> Tensor:
    """(n,) patches -> (1 + n,) tokens, the class token first."""
    return functional.pad(places + 1, (1, 0))


def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    return x if gamma is None else gamma * x


@torch.no_grad()
def mean_patch_attention(encoder: Beit, tokens_BND: Tensor, blocks: int, stride: int = 1) -> Tensor:
    """The paper's A (Eq. 6): attention between patches, mean over all heads and the first `blocks` blocks.

    Args:
        encoder: a BEiT, see `check_beit`.
        tokens_BND: all patches, from `encoder.patch_embed`.
        blocks: how many blocks; a BEiT that has fewer gives all it has.
        stride: look only at every so manieth row and column of patches, see the same function in `vit.py`.

    Returns:
        (B, N, N) float32. Rows sum to less than 1 where the class token took a share.
    """
    grid = encoder.patch_embed.grid_size
    places_n = torch.arange(tokens_BND.shape[1], device=tokens_BND.device).unflatten(0, grid)[::stride, ::stride].flatten()
    if stride == 1:
        maps = attention_maps(encoder, tokens_BND, blocks)
    else:
        maps = attention_maps(encoder, tokens_BND[:, places_n], blocks, places_n)
    return mean_over_blocks(maps, encoder.num_prefix_tokens, grid, stride)
