"""A SimMIM as transformers stores it, in `ViTForMaskedImageModeling` and those of Swin and Swinv2."""

from typing import TYPE_CHECKING, Any

from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from evomask.models.host import TransformersModel
from evomask.models.swin import Swin
from evomask.models.vit_format import check_vit_has_words, is_plain_mlp, named_weights, refuse, vit_config, vit_weights

if TYPE_CHECKING:
    from evomask.models.simmim import SimMIM


def vit_for_transformers(host: "SimMIM") -> TransformersModel:
    """What `ViTForMaskedImageModeling` and `ViTModel` load.

    Raises:
        ValueError: transformers has no words for this ViT.
    """
    check_vit_has_words(host.encoder, "ViT")
    config = {"architectures": ["ViTForMaskedImageModeling"], "model_type": "vit", **vit_config(host.encoder)}
    weights = vit_weights(host.encoder) | _mask_token_and_head(host, "vit")
    return TransformersModel(config | {"encoder_stride": host.stride}, weights)


def swin_for_transformers(host: "SimMIM") -> TransformersModel:
    """What `SwinForMaskedImageModeling` and `SwinModel` load; of a Swin v2, those with Swinv2 in their names.

    Raises:
        ValueError: transformers has no words for this Swin.
    """
    encoder = host.encoder
    first = isinstance(encoder, SwinTransformer)
    model, kind = ("Swin", "swin") if first else ("Swinv2", "swinv2")
    _check_has_words(encoder, model)
    config = {"architectures": [f"{model}ForMaskedImageModeling"], "model_type": kind, **_config(encoder)}
    weights = _weights(encoder, kind, first) | _mask_token_and_head(host, kind)
    return TransformersModel(config | {"encoder_stride": host.stride}, weights)


def _mask_token_and_head(host: "SimMIM", prefix: str) -> dict[str, Tensor]:
    weight = host.head.weight[:, :, None, None]  # transformers' is a convolution of 1 x 1
    return {f"{prefix}.embeddings.mask_token": host.mask_token, "decoder.0.weight": weight, "decoder.0.bias": host.head.bias}


def _check_has_words(encoder: Swin, model: str) -> None:
    """transformers pads before it shifts, timm after: where windows do not divide a grid they see other neighbours.

    transformers knows one size of windows, of whose tables none is cut where a stage is smaller.
    """
    blocks = [block for stage in encoder.layers for block in stage.blocks]
    window = blocks[0].window_size
    norms = [encoder.norm, encoder.patch_embed.norm, *(norm for block in blocks for norm in (block.norm1, block.norm2))]
    without_words = {
        "images or windows that are not square": len(set(encoder.patch_embed.grid_size)) > 1 or len(set(window)) > 1,
        "windows of several sizes": any(block.window_size != window for block in blocks),
        "windows that do not divide the grid of a stage": any(
            size % side for block in blocks for size, side in zip(block.input_resolution, block.window_size, strict=True)
        ),
        "norms other than LayerNorm with eps 1e-5": not all(isinstance(n, nn.LayerNorm) and n.eps == 1e-5 for n in norms),
        "an MLP other than two layers with GELU": not all(is_plain_mlp(block.mlp) for block in blocks),
        "layers without bias": any(_lacks_bias(block.attn) for block in blocks),
        "heads of a width of their own": any(block.attn.qkv.out_features != 3 * block.dim for block in blocks),
        "MLPs of several ratios": len({block.mlp.fc1.out_features / block.dim for block in blocks}) > 1,
    }
    refuse(model, [what for what, holds in without_words.items() if holds])


def _lacks_bias(attention: Any) -> bool:
    return (attention.q_bias if hasattr(attention, "q_bias") else attention.qkv.bias) is None


def _config(encoder: Swin) -> dict[str, Any]:
    first: Any = encoder.layers[0].blocks[0]
    return {
        "image_size": encoder.patch_embed.img_size[0],
        "patch_size": encoder.patch_embed.patch_size[0],
        "num_channels": encoder.in_chans,
        "embed_dim": encoder.embed_dim,
        "depths": [len(stage.blocks) for stage in encoder.layers],
        "num_heads": [stage.blocks[0].attn.num_heads for stage in encoder.layers],
        "window_size": first.window_size[0],
        "mlp_ratio": first.mlp.fc1.out_features / first.dim,
        "qkv_bias": True,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "use_absolute_embeddings": False,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-5,
    }


def _weights(encoder: Swin, prefix: str, first: bool) -> dict[str, Tensor]:
    """All weights under their names in transformers 4."""
    layers: dict[str, nn.Module] = {
        f"{prefix}.embeddings.patch_embeddings.projection": encoder.patch_embed.proj,
        f"{prefix}.embeddings.norm": encoder.patch_embed.norm,
        f"{prefix}.layernorm": encoder.norm,
    }
    weights: dict[str, Tensor] = {}
    for number, stage in enumerate(encoder.layers):
        if number > 0:  # timm halves the grid before a stage, transformers after the one before it
            layers[f"{prefix}.encoder.layers.{number - 1}.downsample.norm"] = stage.downsample.norm
            layers[f"{prefix}.encoder.layers.{number - 1}.downsample.reduction"] = stage.downsample.reduction
        for place, block in enumerate(stage.blocks):
            name = f"{prefix}.encoder.layers.{number}.blocks.{place}"
            layers |= {
                f"{name}.layernorm_before": block.norm1,
                f"{name}.layernorm_after": block.norm2,
                f"{name}.attention.output.dense": block.attn.proj,
                f"{name}.intermediate.dense": block.mlp.fc1,
                f"{name}.output.dense": block.mlp.fc2,
            }
            weights |= {f"{name}.attention.self.{part}": tensor for part, tensor in _attention(block.attn, first).items()}
    return weights | named_weights(layers)


def _attention(attention: Any, first: bool) -> dict[str, Tensor]:
    parts = ("query", "key", "value")
    weights = {f"{p}.weight": w.clone() for p, w in zip(parts, attention.qkv.weight.chunk(3), strict=True)}
    if first:
        weights |= {f"{p}.bias": b.clone() for p, b in zip(parts, attention.qkv.bias.chunk(3), strict=True)}
        return weights | {"relative_position_bias_table": attention.relative_position_bias_table}
    weights |= {"query.bias": attention.q_bias, "value.bias": attention.v_bias, "logit_scale": attention.logit_scale}
    return weights | named_weights({"continuous_position_bias_mlp": attention.cpb_mlp})
