"""Finished weights as other libraries load them: timm (the encoder) and transformers (the encoder with MAE's decoder)."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evomask.models.mae import MAE
from evomask.models.vit import ViTConfig, absolute_positions

ORIGIN = {"exported_by": "evomask"}
"""Stands in the config.json of every export, so that an export replaces an export and nothing else."""


def export_timm(
    encoder: VisionTransformer, config: ViTConfig, folder: Path, mean: Sequence[float], std: Sequence[float]
) -> None:
    """Write a folder from which `timm.create_model("local-dir:FOLDER", pretrained=True)` makes the same encoder.

    Args:
        encoder: the ViT that `build_vit(config)` made.
        config: what it was made from.
        folder: the folder to make. An export that is there already is replaced.
        mean: of a channel of images in [0, 1], as in training; one number a channel.
        std: likewise.

    Raises:
        ValueError: the folder holds something else.
    """
    with _whole_or_absent(folder) as unfinished:
        save_file(_on_cpu(encoder.state_dict()), unfinished / "model.safetensors")
        _write_json(unfinished / "config.json", ORIGIN | _timm_config(encoder, config, mean, std))


def export_transformers(host: MAE, folder: Path, mean: Sequence[float], std: Sequence[float], mask_ratio: float = 0.75) -> None:
    """Write a folder from which `ViTMAEForPreTraining`, `ViTMAEModel`, `ViTModel` and `AutoImageProcessor` load.

    The names of the weights are those of facebook/vit-mae-base, which transformers 4 has and transformers 5 converts.
    ViTModel has a pooler that MAE has no weights for: pass `add_pooling_layer=False`.

    Args:
        host: the MAE.
        folder: the folder to make. An export that is there already is replaced.
        mean: of a channel of images in [0, 1], as in training; one number a channel.
        std: likewise.
        mask_ratio: share of patches that transformers' own random masks hide.

    Raises:
        ValueError: transformers has no words for this ViT, or the folder holds something else.
    """
    without_words = _not_in_transformers(host)
    if without_words:
        raise ValueError(
            f"transformers' ViT-MAE cannot express {', '.join(without_words)}: export the encoder for timm instead (--to timm)"
        )
    with _whole_or_absent(folder) as unfinished:
        save_file(_transformers_weights(host), unfinished / "model.safetensors", metadata={"format": "pt"})
        _write_json(unfinished / "config.json", ORIGIN | _transformers_config(host, mask_ratio))
        _write_json(unfinished / "preprocessor_config.json", _image_processor(host, mean, std))


@contextmanager
def _whole_or_absent(folder: Path) -> Iterator[Path]:
    """Give a folder beside `folder` to write to; it takes that name once all is written."""
    if folder.exists() and not _is_replaceable(folder):
        raise ValueError(f"{folder} exists and is no export of evomask: choose another --out")
    unfinished = folder.with_name(folder.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
    except BaseException:
        shutil.rmtree(unfinished)
        raise
    if folder.exists():
        shutil.rmtree(folder)
    unfinished.rename(folder)


def _is_replaceable(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    config = folder / "config.json"
    return not any(folder.iterdir()) or (config.is_file() and '"exported_by": "evomask"' in config.read_text())


def _timm_config(encoder: VisionTransformer, config: ViTConfig, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """As timm's own `save_for_hf` writes it, but for what it copies from timm's ImageNet weights, such as their licence."""
    return {
        "architecture": config.name,
        "num_classes": encoder.num_classes,
        "num_features": encoder.num_features,
        "model_args": config.timm_arguments(),
        "pretrained_cfg": {
            "tag": "evomask",
            "input_size": [config.in_chans, *config.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "mean": list(mean),
            "std": list(std),
            "num_classes": encoder.num_classes,
            # Named, timm fits it to another number of channels; until 1.0.30 as if the weights were always for 3.
            "first_conv": "patch_embed.proj" if config.in_chans == 3 else None,
            "classifier": "head",
        },
    }


def _not_in_transformers(host: MAE) -> list[str]:
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


def _transformers_config(host: MAE, mask_ratio: float) -> dict[str, Any]:
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


def _image_processor(host: MAE, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    (rows, columns), (height, width) = host.grid, host.patch_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": rows * height, "width": columns * width},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def _transformers_weights(host: MAE) -> dict[str, Tensor]:
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
    return _on_cpu(weights)


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


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
