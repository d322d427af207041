"""An MAE as transformers stores it."""

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from evomask.models.host import TransformersModel
from evomask.models.vit_format import (
    block_weights,
    check_vit_has_words,
    class_row_first,
    named_weights,
    vit_config,
    vit_weights,
)

if TYPE_CHECKING:
    from evomask.models.mae import MAE


def mae_for_transformers(host: "MAE", mask_ratio: float) -> TransformersModel:
    """What `ViTMAEForPreTraining`, `ViTMAEModel` and `ViTModel` load; names as in facebook/vit-mae-base.

    Raises:
        ValueError: transformers has no words for this ViT.
    """
    check_vit_has_words(host.encoder, "ViT-MAE")
    return TransformersModel(_config(host, mask_ratio), _weights(host))


def _config(host: "MAE", mask_ratio: float) -> dict[str, Any]:
    decoder_block: Any = host.decoder_blocks[0]
    return {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        **vit_config(host.encoder),
        "decoder_hidden_size": host.decoder_norm.normalized_shape[0],
        "decoder_num_hidden_layers": len(host.decoder_blocks),
        "decoder_num_attention_heads": decoder_block.attn.num_heads,
        "decoder_intermediate_size": decoder_block.mlp.fc1.out_features,
        "mask_ratio": mask_ratio,
        "norm_pix_loss": host.normalise_pixels,
    }


def _weights(host: "MAE") -> dict[str, Tensor]:
    weights: dict[str, Tensor] = vit_weights(host.encoder) | {
        "decoder.mask_token": host.mask_token,
        "decoder.decoder_pos_embed": class_row_first(host.decoder_positions),
    }
    for number, block in enumerate(host.decoder_blocks):
        weights |= block_weights(f"decoder.decoder_layers.{number}", block)
    layers: dict[str, nn.Module] = {
        "decoder.decoder_embed": host.decoder_embed,
        "decoder.decoder_norm": host.decoder_norm,
        "decoder.decoder_pred": host.decoder_head,
    }
    return weights | named_weights(layers)
