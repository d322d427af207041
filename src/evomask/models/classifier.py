"""An encoder with a head for classes: the timm model itself, so that timm loads what fine-tuning leaves."""

from typing import Any

from timm.layers.drop import DropPath
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from evomask.models.encoders import Pooling

HEAD_STD = 2e-5
"""Of the head's initial weights when all is fine-tuned (MAE, FINETUNE.md): logits begin at zero."""


def add_classifier(model: nn.Module, classes: int, *, pooling: Pooling = "mean", drop_path: float = 0.0) -> nn.Module:
    """Turn an encoder of timm into a classifier, in place.

    A ViT or BEiT that pools the mean of its patch tokens norms the mean, not the tokens, with a norm of its own, as those of
    MAE and of microsoft/unilm do.

    Args:
        model: a ViT, BEiT or Swin of timm.
        classes: number of classes.
        pooling: what the head sees: the class token, or the mean over patch tokens.
        drop_path: stochastic depth rate of the last block, rising linearly from 0 at the first.

    Returns:
        The same model: (B, C, H, W) normalised images -> (B, classes) logits.

    Raises:
        ValueError: a class token is asked for that the model does not have.
    """
    timm_model: Any = model
    if isinstance(model, VisionTransformerDistilled) and pooling == "mean":
        raise ValueError("a distilled DeiT reads its class and distillation tokens: take --pooling token")
    if pooling == "token" and not getattr(timm_model, "num_prefix_tokens", 0):
        raise ValueError(f"{type(model).__name__} has no class token: use the mean over patches")
    if hasattr(timm_model, "num_prefix_tokens"):  # Swin has its own head, which takes the mean
        timm_model.reset_classifier(classes, "avg" if pooling == "mean" else "token")
    else:
        timm_model.reset_classifier(classes)
    if isinstance(model, (VisionTransformer, Beit)) and pooling == "mean":
        timm_model.norm, timm_model.fc_norm = nn.Identity(), nn.LayerNorm(model.embed_dim, eps=1e-6)
    heads = timm_model.get_classifier()  # a distilled DeiT has two
    for head in heads if isinstance(heads, tuple) else (heads,):
        nn.init.trunc_normal_(head.weight, std=HEAD_STD)
        nn.init.zeros_(head.bias)
    set_drop_path(model, drop_path)
    return model


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Give every block its rate of stochastic depth, linearly from 0 at the first block to `rate` at the last.

    Raises:
        ValueError: the rate is none of leaving something out.
    """
    if not 0 <= rate < 1:
        raise ValueError(f"--drop-path is how often the last block is left out, from 0 to below 1, not {rate}")
    blocks = [module for module in model.modules() if hasattr(module, "drop_path1")]
    for number, block in enumerate(blocks):
        own = rate * number / max(1, len(blocks) - 1)
        for name in ("drop_path1", "drop_path2"):
            setattr(block, name, DropPath(own) if own > 0 else nn.Identity())
