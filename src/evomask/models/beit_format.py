"""A BEiT as transformers stores it, in `BeitForMaskedImageModeling`."""

from typing import TYPE_CHECKING, Any

from timm.models.beit import Beit
from torch import Tensor, nn

from evomask.models.host import TransformersModel
from evomask.models.vit_format import is_plain_mlp, named_weights, refuse

if TYPE_CHECKING:
    from evomask.models.beit import BEiT

EPS = 1e-6


def beit_for_transformers(host: "BEiT") -> TransformersModel:
    """What `BeitForMaskedImageModeling` and `BeitModel` load; names as in microsoft/beit-base-patch16-224-pt22k.

    There the last norm is part of the head, and `BeitModel` gives what comes before it.

    Raises:
        ValueError: transformers has no words for this BEiT.
    """
    encoder = host.encoder
    _check_has_words(encoder)
    config = {"architectures": ["BeitForMaskedImageModeling"], "model_type": "beit", **_config(encoder, host.head.out_features)}
    own = {"beit.embeddings.mask_token": host.mask_token} | named_weights({"layernorm": encoder.norm, "lm_head": host.head})
    return TransformersModel(config, _weights(encoder) | own)


def _check_has_words(encoder: Beit) -> None:
    block: Any = encoder.blocks[0]
    norms, embedding = (block.norm1, block.norm2, encoder.norm), encoder.patch_embed
    without_words = {
        "norms other than LayerNorm with eps 1e-6": not all(isinstance(n, nn.LayerNorm) and n.eps == EPS for n in norms),
        "an MLP other than two layers with GELU": not is_plain_mlp(block.mlp),
        "queries and values without bias": block.attn.q_bias is None,
        "images or patches that are not square": len(set(embedding.grid_size)) > 1 or len(set(embedding.patch_size)) > 1,
    }
    refuse("Beit", [what for what, holds in without_words.items() if holds])


def _config(encoder: Beit, vocabulary: int) -> dict[str, Any]:
    block: Any = encoder.blocks[0]
    embedding: Any = encoder.patch_embed
    return {
        "image_size": embedding.img_size[0],
        "patch_size": embedding.patch_size[0],
        "num_channels": encoder.in_chans,
        "vocab_size": vocabulary,
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": len(encoder.blocks),
        "num_attention_heads": block.attn.num_heads,
        "intermediate_size": block.mlp.fc1.out_features,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": EPS,
        "layer_scale_init_value": block.init_values or 0.0,
        "use_mask_token": True,
        "use_mean_pooling": True,
        "use_absolute_position_embeddings": encoder.pos_embed is not None,
        "use_relative_position_bias": block.attn.relative_position_bias_table is not None,
        "use_shared_relative_position_bias": encoder.rel_pos_bias is not None,
    }


def _weights(encoder: Beit) -> dict[str, Tensor]:
    """All weights of the encoder but its last norm, under their names in transformers 4."""
    weights: dict[str, Tensor] = {"beit.embeddings.cls_token": encoder.cls_token}
    if encoder.pos_embed is not None:
        weights["beit.embeddings.position_embeddings"] = encoder.pos_embed
    if encoder.rel_pos_bias is not None:
        table = encoder.rel_pos_bias.relative_position_bias_table
        weights["beit.encoder.relative_position_bias.relative_position_bias_table"] = table
    layers: dict[str, nn.Module] = {"beit.embeddings.patch_embeddings.projection": encoder.patch_embed.proj}
    for number, block in enumerate(encoder.blocks):
        name, any_block = f"beit.encoder.layer.{number}", _untyped(block)
        layers |= {
            f"{name}.layernorm_before": any_block.norm1,
            f"{name}.layernorm_after": any_block.norm2,
            f"{name}.attention.output.dense": any_block.attn.proj,
            f"{name}.intermediate.dense": any_block.mlp.fc1,
            f"{name}.output.dense": any_block.mlp.fc2,
        }
        weights |= {f"{name}.{part}": tensor for part, tensor in _own(any_block).items()}
    return weights | named_weights(layers)


def _untyped(block: nn.Module) -> Any:
    return block


def _own(block: Any) -> dict[str, Tensor]:
    """What is no layer in a block: keys have no bias, and queries, keys and values are three layers in transformers."""
    attention = block.attn
    parts = zip(("query", "key", "value"), attention.qkv.weight.chunk(3), strict=True)
    weights = {f"attention.attention.{part}.weight": weight.clone() for part, weight in parts}
    weights |= {"attention.attention.query.bias": attention.q_bias, "attention.attention.value.bias": attention.v_bias}
    if attention.relative_position_bias_table is not None:
        table = "attention.attention.relative_position_bias.relative_position_bias_table"
        weights[table] = attention.relative_position_bias_table
    if block.gamma_1 is not None:
        weights |= {"lambda_1": block.gamma_1, "lambda_2": block.gamma_2}
    return weights
