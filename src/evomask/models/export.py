"""Finished weights as other libraries load them: timm (the encoder, also as a task has trained it) and transformers."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file
from timm.models._hub import save_config_for_hf
from timm.models.beit import Beit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evomask.models.encoders import Encoder
from evomask.models.host import Host
from evomask.models.weight_files import one_line

ORIGIN = {"exported_by": "evomask"}
"""Stands in the config.json of every export, so that an export replaces an export and nothing else."""


def export_timm(
    encoder: Encoder,
    folder: Path,
    weights: Mapping[str, Tensor] | None = None,
    shown: float = 1.0,
    classes: Sequence[str] = (),
) -> None:
    """Write a folder from which `timm.create_model("local-dir:FOLDER", pretrained=True)` makes the encoder as it is now.

    It has the size, the classifier or none, and the pooling that a task may have given it; how it began is what timm remembers.

    Args:
        encoder: to write.
        folder: the folder to make. An export that is there already is replaced.
        weights: all of the model's, whole, where it does not hold them itself.
        shown: how much of an image's shorter side a classifier was judged by, timm's crop_pct.
        classes: their names, where it has a classifier.

    Raises:
        ValueError: timm does not remember how the model is made, or makes another one; or the folder holds something else.
    """
    model: Any = encoder.model
    if "architecture" not in getattr(model, "pretrained_cfg", {}):
        raise ValueError(
            f"timm is not told by {encoder.name} how to make its model; what was learnt is in the checkpoints alone"
        )
    now = Encoder.of(model, encoder.mean, encoder.std, encoder.name)
    changed = {}
    if isinstance(model, (VisionTransformer, Beit)):
        norm = "fc_norm" if isinstance(model, VisionTransformer) else "use_fc_norm"
        changed = {"depth": len(model.blocks), norm: not isinstance(model.fc_norm, nn.Identity)}
    images = {
        "input_size": (encoder.in_chans, *now.image_size),
        "interpolation": "bicubic",
        "crop_pct": shown,
        "mean": encoder.mean,
        "std": encoder.std,
    }
    with _whole_or_absent(folder) as unfinished:
        said = ORIGIN | {"pretrained_cfg": {"tag": "evomask"}, "label_names": list(classes)}
        save_config_for_hf(model, str(unfinished / "config.json"), said, changed, images)
        save_file(_on_cpu(model.state_dict() if weights is None else weights), unfinished / "model.safetensors")
        try:
            timm.create_model(f"local-dir:{unfinished}", pretrained=True)
        except Exception as error:  # whatever timm raises for arguments and weights that do not fit
            raise ValueError(f"timm makes another model than what has become of {encoder.name}: {one_line(error)}") from error


def export_transformers(
    host: Host, folder: Path, mean: Sequence[float], std: Sequence[float], mask_ratio: float = 0.75
) -> None:
    """Write a folder from which the classes that the host names, see its `for_transformers`, and `AutoImageProcessor` load.

    The names of the weights are those that transformers 4 has and transformers 5 converts. Where transformers' model has a
    pooler, there are no weights for it: pass `add_pooling_layer=False`.

    Args:
        host: the trained host.
        folder: the folder to make. An export that is there already is replaced.
        mean: of a channel of images in [0, 1], as in training; one number a channel.
        std: likewise.
        mask_ratio: share of patches that transformers' own random masks hide.

    Raises:
        ValueError: transformers has no words for this model, or the folder holds something else.
    """
    model = host.for_transformers(mask_ratio)
    with _whole_or_absent(folder) as unfinished:
        save_file(_on_cpu(model.weights), unfinished / "model.safetensors", metadata={"format": "pt"})
        _write_json(unfinished / "config.json", ORIGIN | model.config)
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


def _image_processor(host: Host, mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    height, width = host.encoder.patch_embed.img_size
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": height, "width": width},
        "resample": 3,  # bicubic
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(mean),
        "image_std": list(std),
    }


def _on_cpu(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
