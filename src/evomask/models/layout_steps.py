"""What has to be done to weights beyond new names, before timm's modules can take them. Each step changes them in place."""

import math
import re

import torch
from torch import Tensor

Weights = dict[str, Tensor]


def join_queries_keys_values(weights: Weights) -> None:
    """Three layers become one; where keys have no bias, BEiT's names for those of queries and values."""
    for key in [key for key in weights if key.endswith(".attn.q.weight")]:
        attention = key.removesuffix("q.weight")
        weights[f"{attention}qkv.weight"] = torch.cat([weights.pop(f"{attention}{part}.weight") for part in "qkv"])
        biases = {part: weights.pop(f"{attention}{part}.bias") for part in "qkv" if f"{attention}{part}.bias" in weights}
        if len(biases) == 3:
            weights[f"{attention}qkv.bias"] = torch.cat(list(biases.values()))
        else:
            weights |= {f"{attention}{part}_bias": bias for part, bias in biases.items()}


def join_gates(weights: Weights) -> None:
    """Gate and value of SwiGLU, gate first."""
    for key in [key for key in weights if ".mlp.gate." in key]:
        value = key.replace(".mlp.gate.", ".mlp.up.")
        weights[key.replace(".mlp.gate.", ".mlp.fc1.")] = torch.cat((weights.pop(key), weights.pop(value)))


def fold_class_position(weights: Weights) -> None:
    """With registers, timm keeps positions of patches alone: that of the class token is added to it, registers have none."""
    positions = weights.get("pos_embed")
    if positions is not None and "reg_token" in weights and math.isqrt(positions.shape[1] - 1) ** 2 == positions.shape[1] - 1:
        weights["cls_token"] = weights["cls_token"] + positions[:, :1]
        weights["pos_embed"] = positions[:, 1:]


def add_dimensions(weights: Weights) -> None:
    """CLIP keeps its class token as a vector, its positions as a matrix, and its projection, timm's head, the other way."""
    weights["cls_token"] = weights["cls_token"].reshape(1, 1, -1)
    weights["pos_embed"] = weights["pos_embed"].unsqueeze(0)
    if "projection" in weights:
        weights["head.weight"] = weights.pop("projection").T
    if "head.weight" in weights:
        weights["head.bias"] = torch.zeros(len(weights["head.weight"]))


def shift_downsampling(weights: Weights) -> None:
    """Downsampling ends a stage in the original Swin, and begins the next in timm's. Its classifier timm calls head.fc."""
    if not any(key.startswith("layers.0.downsample.") for key in weights):
        return
    for key in sorted((key for key in weights if re.match(r"layers\.\d+\.downsample\.", key)), reverse=True):
        _, stage, rest = key.split(".", 2)
        weights[f"layers.{int(stage) + 1}.{rest}"] = weights.pop(key)
    for kind in ("weight", "bias"):
        if f"head.{kind}" in weights:
            weights[f"head.fc.{kind}"] = weights.pop(f"head.{kind}")
