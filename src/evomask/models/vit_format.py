"""A plain ViT as transformers stores it: what of it has words there, its configuration, and the names of its weights."""

from typing import Any

import torch
from timm.layers.activations import GELU
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evomask.models.vit import absolute_positions


def check_vit_has_words(encoder: VisionTransformer, model: str) -> None:
    """Raise a ValueError that names what of this ViT transformers' `model` has no option for."""
    block: Any = encoder.blocks[0]
    attention, norms = block.attn, (block.norm1, block.norm2, encoder.norm)
    embedding = encoder.patch_embed
    without_words = {
        "a ViT without class token": encoder.cls_token is None,
        "register tokens": encoder.reg_token is not None,
        "normalised queries and keys": not isinstance(attention.q_norm, nn.Identity),
        "layer scale": not isinstance(block.ls1, nn.Identity),
        "a norm before the first block": not isinstance(encoder.norm_pre, nn.Identity),
        "a norm inside attention": not isinstance(attention.norm, nn.Identity),
        "norms other than LayerNorm with eps 1e-6": not all(isinstance(n, nn.LayerNorm) and n.eps == 1e-6 for n in norms),
        "an MLP other than two layers with GELU": not is_plain_mlp(block.mlp),
        "layers without bias": attention.qkv.bias is None or attention.proj.bias is None,
        "images or patches that are not square": len(set(embedding.grid_size)) > 1 or len(set(embedding.patch_size)) > 1,
    }
    refuse(model, [what for what, holds in without_words.items() if holds])


def refuse(model: str, without_words: list[str]) -> None:
    """Raise a ValueError where there is something that transformers' `model` cannot express."""
    if without_words:
        raise ValueError(
            f"transformers' {model} cannot express {', '.join(without_words)}: export the encoder for timm instead (--to timm)"
        )


def is_plain_mlp(mlp: nn.Module) -> bool:
    """Whether it is two layers with GELU."""
    return type(mlp) is Mlp and isinstance(mlp.act, nn.GELU | GELU) and isinstance(mlp.norm, nn.Identity)


def vit_config(encoder: VisionTransformer) -> dict[str, Any]:
    """Of config.json, what all of transformers' ViTs have."""
    block: Any = encoder.blocks[0]
    return {
        "image_size": encoder.patch_embed.img_size[0],
        "patch_size": encoder.patch_embed.patch_size[0],
        "num_channels": encoder.in_chans,
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
    }


def vit_weights(encoder: VisionTransformer) -> dict[str, Tensor]:
    """All weights under their names in transformers 4."""
    positions: Tensor = absolute_positions(encoder)
    if encoder.no_embed_class:  # timm then keeps no position for the class token; transformers adds one, here zero
        positions = class_row_first(positions)
    assert encoder.cls_token is not None
    weights: dict[str, Tensor] = {
        "vit.embeddings.cls_token": encoder.cls_token,
        "vit.embeddings.position_embeddings": positions,
    }
    layers: dict[str, nn.Module] = {
        "vit.embeddings.patch_embeddings.projection": encoder.patch_embed.proj,
        "vit.layernorm": encoder.norm,
    }
    for number, block in enumerate(encoder.blocks):
        weights |= block_weights(f"vit.encoder.layer.{number}", block)
    return weights | named_weights(layers)


def block_weights(name: str, block: Any) -> dict[str, Tensor]:
    """Of a block of a ViT: queries, keys and values are one layer in timm, three in transformers."""
    layers = {
        f"{name}.layernorm_before": block.norm1,
        f"{name}.attention.output.dense": block.attn.proj,
        f"{name}.layernorm_after": block.norm2,
        f"{name}.intermediate.dense": block.mlp.fc1,
        f"{name}.output.dense": block.mlp.fc2,
    }
    return named_weights(layers) | {
        f"{name}.attention.attention.{part}.{kind}": tensor.clone()
        for kind, stacked in block.attn.qkv.state_dict().items()
        for part, tensor in zip(("query", "key", "value"), stacked.chunk(3), strict=True)
    }


def named_weights(layers: dict[str, nn.Module]) -> dict[str, Tensor]:
    """The weights of each layer under the name that it is given."""
    return {f"{name}.{kind}": tensor for name, layer in layers.items() for kind, tensor in layer.state_dict().items()}


def class_row_first(positions_1ND: Tensor) -> Tensor:
    """(1, N, D) -> (1, 1 + N, D), zeros for the class token."""
    return torch.cat((torch.zeros_like(positions_1ND[:, :1]), positions_1ND), dim=1)
