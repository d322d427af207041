"""A frozen encoder to look at or to evaluate, from what a user names: a run, an exported folder, a model of timm."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Encoder:
    """A ViT in evaluation mode, and how its images are to be normalised.

    Attributes:
        model: the timm ViT.
        mean: of a channel of images in [0, 1], to be subtracted; one number a channel.
        std: to divide by after that; one number a channel.
        name: what the user called it.
    """

    model: VisionTransformer
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str

    @classmethod
    def of(cls, model: nn.Module, mean: Sequence[float], std: Sequence[float], name: str) -> "Encoder":
        """The same model, put into evaluation mode.

        Raises:
            ValueError: it is no timm VisionTransformer.
        """
        if not isinstance(model, VisionTransformer):
            raise ValueError(f"{name} is a {type(model).__name__}: an encoder must be a timm VisionTransformer")
        return cls(model.eval(), tuple(mean), tuple(std), name)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.model.patch_embed.img_size

    @property
    def in_chans(self) -> int:
        """Channels of an image."""
        return self.model.in_chans

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, N, D) patch tokens after the final norm, without class token and registers."""
        # timm calls the final norm fc_norm where it pools before it. Only one of the two is there.
        tokens_BLD = self.model.fc_norm(self.model.forward_features(images))
        return tokens_BLD[:, self.model.num_prefix_tokens :]

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, D), the mean over patch tokens."""
        return self.patch_tokens(images).mean(dim=1)


def load_encoder(spec: str) -> Encoder:
    """The encoder that `spec` names.

    Args:
        spec: a run's folder, a folder exported for timm, or `timm:NAME` for pretrained weights of timm.

    Raises:
        ValueError: it is none of these, or cannot be loaded.
    """
    kind, _, name = spec.partition(":")
    if kind in _LOADERS:
        return _LOADERS[kind](name, spec)
    content = _read_config(Path(spec))
    if "architecture" in content:
        return _load_timm(f"local-dir:{spec}", spec)
    if "command" in content and "config" in content:
        return _load_run(Path(spec))
    raise ValueError(
        f"no encoder {spec!r}: name a run's folder, a folder that `evomask export RUN --to timm` made, or timm:NAME"
        " (NAME as in timm.list_models(pretrained=True))"
    )


def _load_timm(name: str, spec: str) -> Encoder:
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # whatever the hub's client, the network below it or the files give rise to
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{spec} cannot be loaded by timm: {reason[0]}") from error
    config: Any = model.pretrained_cfg
    return Encoder.of(model, config["mean"], config["std"], spec)


def _load_run(run: Path) -> Encoder:
    exported = run / "export" / "timm"
    if not (exported / "config.json").is_file():
        raise ValueError(f"{run} has no exported weights yet: `evomask export {run} --to timm` writes them")
    return _load_timm(f"local-dir:{exported}", str(run))


def _read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, by which runs and exports are told apart; empty where there is none."""
    try:
        content = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


_LOADERS: dict[str, Callable[[str, str], Encoder]] = {"timm": _load_timm}
"""What stands before a spec's colon -> a function of what stands after it, and of the whole. A further form is a line here."""
