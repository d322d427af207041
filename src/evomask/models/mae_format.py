"""An MAE as transformers stores it, and how its ViT is named there."""

from typing import TYPE_CHECKING, Any

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from evomask.models.host import TransformersModel
from evomask.models.vit import absolute_positions

if TYPE_CHECKING:
    from evomask.models.mae import MAE


def mae_for_transformers(host: "MAE", mask_ratio: float) -> TransformersModel:
    """What `ViTMAEForPreTraining`, `ViTMAEModel` and `ViTModel` load; names as in facebook/vit-mae-base.

    Raises:
        ValueError: transformers has no words for this ViT.
    """
    without_words = _not_in_transformers(host)
    if without_words:
        raise ValueError(
            f"transformers' ViT-MAE cannot express {', '.join(without_words)}: export the encoder for timm instead (--to timm)"
        )
    return TransformersModel(_transformers_config(host, mask_ratio), _transformers_weights(host))


def _not_in_transformers(host: "MAE") -> list[str]:
    """What of this model transformers' ViT-MAE has no option for."""
    encoder = host.encoder
    block: Any = encoder.blocks[0]
    attention, norms = block.attn, (block.norm1, block.norm2, encoder.norm)
    without_words = {
        "a ViT without class token": encoder.cls_token is None,
        "register tokens": encoder.reg_token is not None,
        "normalised queries and keys": not isinstance(attention.q_norm, nn.Identity),
        "layer scale": not isinstance(block.ls1, nn.Identity),
        "a norm before the first block": not isinstance(encoder.norm_pre, nn.Identity),
        "a norm inside attention": not isinstance(attention.norm, nn.Identity),
        "norms other than LayerNorm with eps 1e-6": not all(isinstance(n, nn.LayerNorm) and n.eps == 1e-6 for n in norms),
        "an MLP other than two layers with GELU": not _is_plain_mlp(block.mlp),
        "layers without bias": attention.qkv.bias is None or attention.proj.bias is None,
        "images or patches that are not square": len(set(host.grid)) > 1 or len(set(host.patch_size)) > 1,
    }
    return [what for what, holds in without_words.items() if holds]


def _is_plain_mlp(mlp: nn.Module) -> bool:
    return type(mlp) is Mlp and isinstance(mlp.act, nn.GELU) and isinstance(mlp.norm, nn.Identity)


def _transformers_config(host: "MAE", mask_ratio: float) -> dict[str, Any]:
    encoder = host.encoder
    block: Any = encoder.blocks[0]
    decoder_block: Any = host.decoder_blocks[0]
    return {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "image_size": host.grid[0] * host.patch_size[0],
        "patch_size": host.patch_size[0],
        "num_channels": encoder.in_chans,
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "decoder_hidden_size": host.decoder_norm.normalized_shape[0],
        "decoder_num_hidden_layers": len(host.decoder_blocks),
        "decoder_num_attention_heads": decoder_block.attn.num_heads,
        "decoder_intermediate_size": decoder_block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "mask_ratio": mask_ratio,
        "norm_pix_loss": host.normalise_pixels,
    }


def _transformers_weights(host: "MAE") -> dict[str, Tensor]:
    """All weights under their names in transformers 4."""
    encoder = host.encoder
    positions: Tensor = absolute_positions(encoder)
    if encoder.no_embed_class:  # timm then keeps no position for the class token; transformers adds one, here zero
        positions = _class_row_first(positions)
    assert encoder.cls_token is not None
    weights: dict[str, Tensor] = {
        "vit.embeddings.cls_token": encoder.cls_token,
        "vit.embeddings.position_embeddings": positions,
        "decoder.mask_token": host.mask_token,
        "decoder.decoder_pos_embed": _class_row_first(host.decoder_positions),
    }
    layers: dict[str, nn.Module] = {
        "vit.embeddings.patch_embeddings.projection": encoder.patch_embed.proj,
        "vit.layernorm": encoder.norm,
        "decoder.decoder_embed": host.decoder_embed,
        "decoder.decoder_norm": host.decoder_norm,
        "decoder.decoder_pred": host.decoder_head,
    }
    for number, block in enumerate(encoder.blocks):
        layers |= _block_layers(f"vit.encoder.layer.{number}", block)
        weights |= _attention_weights(f"vit.encoder.layer.{number}", block)
    for number, block in enumerate(host.decoder_blocks):
        layers |= _block_layers(f"decoder.decoder_layers.{number}", block)
        weights |= _attention_weights(f"decoder.decoder_layers.{number}", block)
    for name, layer in layers.items():
        weights |= {f"{name}.{kind}": tensor for kind, tensor in layer.state_dict().items()}
    return weights


def _block_layers(name: str, block: Any) -> dict[str, nn.Module]:
    return {
        f"{name}.layernorm_before": block.norm1,
        f"{name}.attention.output.dense": block.attn.proj,
        f"{name}.layernorm_after": block.norm2,
        f"{name}.intermediate.dense": block.mlp.fc1,
        f"{name}.output.dense": block.mlp.fc2,
    }


def _attention_weights(name: str, block: Any) -> dict[str, Tensor]:
    """Queries, keys and values: one layer in timm, three in transformers."""
    return {
        f"{name}.attention.attention.{part}.{kind}": tensor.clone()
        for kind, stacked in block.attn.qkv.state_dict().items()
        for part, tensor in zip(("query", "key", "value"), stacked.chunk(3), strict=True)
    }


def _class_row_first(positions_1ND: Tensor) -> Tensor:
    return torch.cat((torch.zeros_like(positions_1ND[:, :1]), positions_1ND), dim=1)
