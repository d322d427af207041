"""The timm model that weights belong to, from their shapes and the few things that shapes do not tell."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import timm
import torch
from timm.layers.mlp import SwiGLUPacked
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from evomask.models.layout_steps import Weights
from evomask.models.timm_encoder import without_origin

HEADS = {192: 3, 384: 6, 512: 8, 640: 10, 768: 12, 896: 14, 1024: 16, 1152: 16, 1280: 16, 1408: 16, 1536: 24, 1664: 16}
"""Width -> attention heads of the ViTs that are published: tiny, small, base, large, huge, giant and those between."""

SWIN_WINDOWS = 8
"""Windows along a side of the image in Swin's first stage, in all that are published: 224 px with windows of 7, 384 with 12."""

TIMMS_EPS = {"vit": 1e-6, "beit": 1e-6, "swin": 1e-5}
"""Of the norms of the models that timm has names for; it has no word for another one."""

FOREIGN_PARTS = {
    "patch_embed.backbone.": "a convolutional network before its patches",
    "attn_pool.": "attention pooling as SigLIP has",
    "rope_embed.": "rotary positions as DINOv3 has",
}
"""Of ViTs that are none of the layouts, and would be misread although most of their tensors fit."""


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What the shapes of weights do not tell.

    Attributes:
        image_size: height and width in pixels that the weights are for. None: square; for Swin, as in SWIN_WINDOWS.
        heads: attention heads. None: as the width says, see HEADS, or a table of relative positions.
        activation: in the MLPs, as timm calls it.
        eps: of the norms.
    """

    image_size: tuple[int, int] | None = None
    heads: int | None = None
    activation: str = "gelu"
    eps: float = 1e-6


def build_for(family: str, weights: Weights, hints: Hints) -> nn.Module:
    """A model of timm that the weights fit, if any does; its own weights are random.

    Args:
        family: a key of FAMILIES.
        weights: under timm's names.
        hints: what the weights do not tell.

    Raises:
        ValueError: a part without which nothing can be told is missing, or what is not told has to be named.
    """
    try:
        return FAMILIES[family](weights, hints)
    except KeyError as error:
        raise ValueError(f"it has no {error.args[0]}") from error


def _vit(weights: Weights, hints: Hints) -> nn.Module:
    for part, what in FOREIGN_PARTS.items():
        if any(key.startswith(part) for key in weights):
            raise ValueError(f"it has {what}, which is read by timm:NAME alone")
    width, channels, *patch = weights["patch_embed.proj.weight"].shape
    hidden, gated = _mlp(weights, "blocks.0")
    distilled, registers = "dist_token" in weights, weights.get("reg_token", torch.empty(1, 0)).shape[1]
    prefix = ("cls_token" in weights) + distilled + registers
    grid, embedded = _absolute_grid(weights, prefix, (patch[0], patch[1]), hints)
    options = {
        "img_size": (grid[0] * patch[0], grid[1] * patch[1]),
        "patch_size": tuple(patch),
        "in_chans": channels,
        "num_classes": _rows(weights, "head.weight"),
        "global_pool": "avg" if "fc_norm.weight" in weights or "cls_token" not in weights else "token",
        "embed_dim": width,
        "depth": _count(weights, r"blocks\.(\d+)\."),
        "num_heads": _heads(width, hints),
        "mlp_ratio": _ratio(hidden, width),
        "qkv_bias": "blocks.0.attn.qkv.bias" in weights,
        "qk_norm": "blocks.0.attn.q_norm.weight" in weights,
        "proj_bias": "blocks.0.attn.proj.bias" in weights,
        "init_values": 1.0 if "blocks.0.ls1.gamma" in weights else 0.0,
        "class_token": "cls_token" in weights,
        "reg_tokens": registers,
        "pos_embed": "learn" if "pos_embed" in weights else "none",
        "no_embed_class": not embedded,
        "pre_norm": "norm_pre.weight" in weights,
        "final_norm": "norm.weight" in weights or "fc_norm.weight" in weights,
        "fc_norm": "fc_norm.weight" in weights,
        "act_layer": "silu" if gated else hints.activation,
    }
    if hints.eps == TIMMS_EPS["vit"] and not gated and not distilled:
        return _named("vit_base_patch16_224", options)
    if gated:
        options["mlp_layer"] = SwiGLUPacked
    norm = partial(nn.LayerNorm, eps=hints.eps)
    return (VisionTransformerDistilled if distilled else VisionTransformer)(**options, norm_layer=norm)


def _beit(weights: Weights, hints: Hints) -> nn.Module:
    _require_gelu(hints)
    width, channels, *patch = weights["patch_embed.proj.weight"].shape
    hidden, gated = _mlp(weights, "blocks.0")
    shared, own = "rel_pos_bias.relative_position_bias_table", "blocks.0.attn.relative_position_bias_table"
    table = weights.get(shared, weights.get(own))
    if table is None:
        grid, _ = _absolute_grid(weights, 1, (patch[0], patch[1]), hints)
    else:
        grid = _relative_grid(len(table) - 3, (patch[0], patch[1]), hints)  # 3: to, from and of the class token
    options: dict[str, Any] = {
        "img_size": (grid[0] * patch[0], grid[1] * patch[1]),
        "patch_size": patch[0],
        "in_chans": channels,
        "num_classes": _rows(weights, "head.weight"),
        "global_pool": "avg" if "fc_norm.weight" in weights else "token",
        "embed_dim": width,
        "depth": _count(weights, r"blocks\.(\d+)\."),
        "num_heads": _heads(width, hints) if table is None else table.shape[1],
        "qkv_bias": "blocks.0.attn.q_bias" in weights,
        "mlp_ratio": _ratio(hidden, width),
        "swiglu_mlp": gated,
        "init_values": 1.0 if "blocks.0.gamma_1" in weights else 0.0,
        "use_abs_pos_emb": "pos_embed" in weights,
        "use_rel_pos_bias": own in weights,
        "use_shared_rel_pos_bias": shared in weights,
    }
    if hints.eps == TIMMS_EPS["beit"]:
        return _named("beit_base_patch16_224", options)
    norm: Any = partial(nn.LayerNorm, eps=hints.eps)
    return Beit(**options, norm_layer=norm)


def _swin(weights: Weights, hints: Hints) -> nn.Module:
    _require_gelu(hints)
    if "absolute_pos_embed" in weights:
        raise ValueError("it has absolute positions, which timm's Swin has not")
    width, channels, *patch = weights["patch_embed.proj.weight"].shape
    stages = range(_count(weights, r"layers\.(\d+)\."))
    tables = [weights[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"] for stage in stages]
    window = (math.isqrt(len(tables[0])) + 1) // 2
    side = SWIN_WINDOWS * window
    native = (side * patch[0], side * patch[1])
    size = hints.image_size or native
    tokens = min(length // cell for length, cell in zip(size, patch, strict=True))
    # At a size where timm makes windows smaller, tables would not fit: it is built as it was, and resized with its weights.
    if any(tokens / 2**stage < (math.isqrt(len(table)) + 1) // 2 for stage, table in enumerate(tables)):
        size = native
    hidden, _ = _mlp(weights, "layers.0.blocks.0")
    options: dict[str, Any] = {
        "img_size": size,
        "patch_size": patch[0],
        "in_chans": channels,
        "num_classes": _rows(weights, "head.fc.weight"),
        "embed_dim": width,
        "depths": tuple(_count(weights, rf"layers\.{stage}\.blocks\.(\d+)\.") for stage in stages),
        "num_heads": tuple(table.shape[1] for table in tables),
        "window_size": window,
        "mlp_ratio": _ratio(hidden, width),
        "qkv_bias": "layers.0.blocks.0.attn.qkv.bias" in weights,
        "drop_path_rate": 0.0,
    }
    if hints.eps == TIMMS_EPS["swin"]:
        return _named("swin_tiny_patch4_window7_224", options)
    norm: Any = partial(nn.LayerNorm, eps=hints.eps)
    return SwinTransformer(**options, norm_layer=norm)


def _named(name: str, options: dict[str, Any]) -> nn.Module:
    """Made by timm itself, which so remembers how: what is tuned can be exported to it."""
    return without_origin(timm.create_model(name, **options))


FAMILIES: dict[str, Callable[[Weights, Hints], nn.Module]] = {"vit": _vit, "beit": _beit, "swin": _swin}
"""Architectures of timm, by what layouts call them."""


def _require_gelu(hints: Hints) -> None:
    if hints.activation != "gelu":
        raise ValueError(f"timm's BEiT and Swin have the activation gelu, not {hints.activation}")


def _mlp(weights: Weights, block: str) -> tuple[int, bool]:
    """Rows of the first layer, and whether they are gate and value of SwiGLU."""
    rows = len(weights[f"{block}.mlp.fc1.weight"])
    return rows, rows == 2 * weights[f"{block}.mlp.fc2.weight"].shape[1]


def _ratio(hidden: int, width: int) -> float:
    """timm rounds width * ratio down; the half keeps that from losing one."""
    return hidden / width if hidden % width == 0 else (hidden + 0.5) / width


def _rows(weights: Weights, key: str) -> int:
    return len(weights[key]) if key in weights else 0


def _count(weights: Weights, pattern: str) -> int:
    numbers = [int(found[1]) for key in weights if (found := re.match(pattern, key))]
    return max(numbers, default=-1) + 1


def _heads(width: int, hints: Hints) -> int:
    heads = hints.heads or HEADS.get(width)
    if heads is None:
        raise ValueError(
            f"weights do not tell how many attention heads a width of {width} has: name them, as in weights.pth?heads=4"
        )
    if width % heads:
        raise ValueError(f"{heads} heads do not divide its width of {width}")
    return heads


def _absolute_grid(weights: Weights, prefix: int, patch: tuple[int, int], hints: Hints) -> tuple[tuple[int, int], bool]:
    """Rows and columns of patches, and whether class token and registers have positions too."""
    if "pos_embed" not in weights:
        if hints.image_size is None:
            raise ValueError(
                "it has no positions, so that nothing tells the size of its images: name it, as in weights.pth?image_size=224"
            )
        return _patches(hints.image_size, patch), False
    positions = weights["pos_embed"].shape[1]
    for count, embedded in ((positions - prefix, True), (positions, False)):
        grid = None if hints.image_size is None else _patches(hints.image_size, patch)
        if grid is not None and math.prod(grid) == count:
            return grid, embedded
    for count, embedded in ((positions - prefix, True), (positions, False)):
        side = math.isqrt(max(0, count))
        if side > 0 and side * side == count:
            return (side, side), embedded
    raise ValueError(
        f"its {positions} positions are no square: name the size of its images, as in weights.pth?image_size=HEIGHTxWIDTH"
    )


def _relative_grid(distances: int, patch: tuple[int, int], hints: Hints) -> tuple[int, int]:
    if hints.image_size is not None:
        rows, columns = _patches(hints.image_size, patch)
        if (2 * rows - 1) * (2 * columns - 1) == distances:
            return rows, columns
    side = (math.isqrt(distances) + 1) // 2
    if (2 * side - 1) ** 2 != distances:
        raise ValueError(
            "its relative positions are of no square: name the size of its images, as in weights.pth?image_size=HEIGHTxWIDTH"
        )
    return side, side


def _patches(image_size: tuple[int, int], patch: tuple[int, int]) -> tuple[int, int]:
    return image_size[0] // patch[0], image_size[1] // patch[1]
