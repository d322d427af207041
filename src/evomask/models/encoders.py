"""A frozen encoder to look at or to evaluate, from what a user names: a run, a folder, a file of weights, a model of a hub."""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from huggingface_hub import snapshot_download
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evomask.models.pretrained import (
    Pretrained,
    load_checkpoint,
    load_file,
    load_timm,
    load_transformers,
)
from evomask.models.specs import SpecOptions, parse_spec
from evomask.models.taps import AttentionTap, attention_tap
from evomask.models.vit import check_plain_vit
from evomask.models.weight_files import ENDINGS, FOLDER_FILES, MANIFEST, json_or_nothing, one_line

Pooling = Literal["token", "mean"]
logger = logging.getLogger("evomask")

EXPORT = "export"
"""Below the folder of a run, and of an evaluation that has tuned its encoder: a folder for each library that loads it."""

TIMM_EXPORT = Path(EXPORT, "timm")


@dataclass(frozen=True, eq=False)
class Encoder:
    """A model of timm in evaluation mode, and how its images are to be normalised.

    Attributes:
        model: the timm model, a ViT, BEiT, Swin or any other; with its classifier where its weights have one.
        mean: of a channel of images in [0, 1], to be subtracted; one number a channel.
        std: to divide by after that; one number a channel.
        name: what the user called it.
        image_size: height and width in pixels.
        cell: of a Swin that was pretrained on cells of another size than `swin.default_cell`: their side in pixels.
    """

    model: nn.Module
    mean: tuple[float, ...]
    std: tuple[float, ...]
    name: str
    image_size: tuple[int, int]
    cell: int | None = None

    @classmethod
    def of(cls, model: nn.Module, mean: Sequence[float], std: Sequence[float], name: str, cell: int | None = None) -> "Encoder":
        """The same model, put into evaluation mode.

        Raises:
            ValueError: it is no model of timm, or the number of channels is not that of mean and std.
        """
        timm_model: Any = model
        if not hasattr(model, "forward_features"):
            raise ValueError(f"{name} is a {type(model).__name__}: an encoder must be a model of timm")
        channels = getattr(model, "in_chans", len(mean))
        if not len(mean) == len(std) == channels:
            raise ValueError(f"{name} sees {channels} channels, but mean and std are given of {len(mean)} and {len(std)}")
        fixed = getattr(getattr(model, "patch_embed", None), "img_size", None)
        height, width = fixed or timm_model.pretrained_cfg["input_size"][1:]
        return cls(model.eval(), tuple(mean), tuple(std), name, (height, width), cell)

    @property
    def in_chans(self) -> int:
        """Channels of an image."""
        return len(self.mean)

    @property
    def width(self) -> int:
        """Of a feature."""
        timm_model: Any = self.model
        return timm_model.num_features

    @property
    def poolings(self) -> tuple[Pooling, ...]:
        """What `features` can be made of."""
        return ("mean",) if getattr(self.model, "cls_token", None) is None else get_args(Pooling)

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, N, D) patch tokens after the final norm, without class token and registers.

        Of Swin and other models whose last map is smaller than the grid of patches, the places of that map.
        """
        return self._pooling_norm(self._tokens(images)[1])

    def features(self, images: Tensor, pooling: Pooling = "mean") -> Tensor:
        """(B, C, H, W) normalised images -> (B, D).

        Args:
            images: of the encoder's size and channels.
            pooling: the class token, or the mean over patch tokens; after or before the final norm, as the model has it.

        Raises:
            ValueError: the model has no class token.
        """
        if pooling not in self.poolings:
            raise ValueError(f"{self.name} has no class token: its features are the mean over patches")
        prefix_BPD, patches_BND = self._tokens(images)
        return self._pooling_norm(prefix_BPD[:, 0] if pooling == "token" else patches_BND.mean(dim=1))

    def resized(self, image_size: tuple[int, int]) -> "Encoder":
        """The same encoder for images of another size: its positions are interpolated, in place.

        Raises:
            ValueError: the patches do not divide the size, or the model is for images of one size.
        """
        if image_size == self.image_size:
            return self
        timm_model: Any = self.model
        if not hasattr(timm_model, "set_input_size"):
            raise ValueError(f"{self.name} is a {type(timm_model).__name__}, whose image size timm cannot change")
        if any(size % patch for size, patch in zip(image_size, timm_model.patch_embed.patch_size, strict=True)):
            patch = " x ".join(map(str, timm_model.patch_embed.patch_size))
            raise ValueError(f"{self.name} has patches of {patch} px, which do not divide {image_size[0]} x {image_size[1]} px")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on timm's code, where it interpolates tables of BEiT
            timm_model.set_input_size(img_size=image_size)
        return replace(self, image_size=image_size)

    @property
    def tap(self) -> AttentionTap:
        """How the model is asked for its attention.

        Raises:
            ValueError: it is not known how, see `attention_tap`.
        """
        try:
            return attention_tap(self.model, self.cell)
        except ValueError as error:
            raise ValueError(f"attention, masks and trees cannot be had of {self.name}: {error}") from error

    def plain_vit(self) -> VisionTransformer:
        """The model, where it is a plain ViT.

        Raises:
            ValueError: it is not, see `check_plain_vit`.
        """
        try:
            return check_plain_vit(self.model)
        except ValueError as error:
            raise ValueError(f"{self.name} is no plain ViT: {error}") from error

    def _tokens(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Class token, registers and their like, and patches, as `forward_features` leaves them."""
        timm_model: Any = self.model
        features = timm_model.forward_features(images)
        if features.ndim == 4:
            channels_last = getattr(timm_model, "output_fmt", "NCHW") == "NHWC"
            features = features.flatten(1, 2) if channels_last else features.flatten(2).mT
        prefix = getattr(timm_model, "num_prefix_tokens", 0)
        return features[:, :prefix], features[:, prefix:]

    def _pooling_norm(self, features: Tensor) -> Tensor:
        """timm calls the final norm fc_norm where it pools before it. Only one of the two is there."""
        norm = getattr(self.model, "fc_norm", None)
        return features if norm is None else norm(features)


def load_encoder(spec: str) -> Encoder:
    """The encoder that `spec` names.

    What was loaded, what was missing and what was left out is logged as information of the logger "evomask".

    Args:
        spec: a run's folder, one of its checkpoints (RUN/checkpoints/step_...), the folder of an evaluation that has tuned its
            encoder, a folder in the format of timm or transformers, a file of weights in one of `layouts.LAYOUTS`, `timm:NAME`
            or `hf:NAME-or-folder`; and after a question mark what it does not say itself, see `specs.SpecOptions`.

    Raises:
        ValueError: it is none of these, cannot be loaded, or less than 90% of a file fits.
    """
    name, options = parse_spec(spec)
    pretrained = _load(name, options)
    mean, std = options.mean or pretrained.mean, options.std or pretrained.std
    if mean is None or std is None:
        raise ValueError(f"{spec} does not say how its images are normalised: name it, as in {name}?mean=0.5,0.4&std=0.2,0.2")
    if len(mean) == 1 or len(std) == 1:  # said once for all channels
        mean, std = (tuple(part) * (pretrained.model.in_chans if len(part) == 1 else 1) for part in (mean, std))
    encoder = Encoder.of(pretrained.model, mean, std, spec, pretrained.cell)
    if options.image_size is not None:
        encoder = encoder.resized(options.image_size)
    size = " x ".join(map(str, encoder.image_size))
    logger.info("%s: %s; images of %s px, mean %s, std %s", spec, pretrained.account, size, _numbers(mean), _numbers(std))
    return encoder


def _load(name: str, options: SpecOptions) -> Pretrained:
    form, _, rest = name.partition(":")
    path = Path(name)
    if path.is_file() or (path.suffix in ENDINGS and form not in HUBS):
        return _load_file(path, options)
    if options.of_file():
        raise ValueError(f"{name} says itself what its {' and '.join(options.of_file())} are: leave that to files of weights")
    if form in HUBS and rest:
        return HUBS[form](rest, name)
    if path.is_dir():
        return _load_folder(path)
    raise _no_encoder(name)


def _load_file(file: Path, options: SpecOptions) -> Pretrained:
    beside = file.parent / "config.json"
    if file.name in FOLDER_FILES and beside.is_file() and not options.of_file():
        return _load_folder(file.parent)
    return load_file(file, options.of_file() | {"image_size": options.image_size})


def _load_folder(folder: Path) -> Pretrained:
    config = json_or_nothing(folder / "config.json")
    if "architecture" in config:
        return load_timm(f"local-dir:{folder}", str(folder))
    if "model_type" in config:
        return load_transformers(folder)
    if (folder / MANIFEST).is_file():
        return load_checkpoint(folder)
    if "command" not in config or "config" not in config:
        raise _no_encoder(str(folder))
    if "trains" in config:
        raise ValueError(f"{folder} has trained a {config['trains']}, which is no encoder: name a run of `evomask pretrain`")
    exported = folder / TIMM_EXPORT
    if not (exported / "config.json").is_file():
        if "task" in config:
            raise ValueError(
                f"{folder} holds no encoder that was tuned: it is not finished, it has left its encoder as it was, which is"
                f" {config['encoder']}, or timm has no word for what it has tuned"
            )
        raise ValueError(
            f"{folder} has no exported weights yet: `evomask export {folder} --to timm` writes them; or name one of its"
            f" {folder / 'checkpoints'}"
        )
    cell = config["config"].get("host", {}).get("cell")  # of a run; what timm reads does not know it
    return replace(load_timm(f"local-dir:{exported}", str(folder)), cell=cell)


def _load_hf(name: str, spec: str) -> Pretrained:
    """A folder, or a repository of Hugging Face's hub: the files are fetched, and then read as those of a folder are."""
    if Path(name).is_dir():
        return _load_folder(Path(name))
    try:
        folder = Path(snapshot_download(name, allow_patterns=["config.json", "preprocessor_config.json"]))
        if "architecture" in json_or_nothing(folder / "config.json"):
            return load_timm(f"hf-hub:{name}", spec)
        snapshot_download(name, allow_patterns=["model.safetensors", "model-*.safetensors", "model.safetensors.index.json"])
        if not any(folder.glob("model*.safetensors")):
            snapshot_download(name, allow_patterns=["pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json"])
    except Exception as error:  # whatever the hub's client and the network below it give rise to
        raise ValueError(f"{spec} cannot be fetched: {one_line(error)}") from error
    return load_transformers(folder)


HUBS: dict[str, Callable[[str, str], Pretrained]] = {"timm": load_timm, "hf": _load_hf}
"""What stands before a spec's colon -> a function of what stands after it, and of the whole. A further form is a line here."""


def _no_encoder(name: str) -> ValueError:
    return ValueError(
        f"no encoder {name!r}: name a run's folder, that of an evaluation that tuned one, one that `evomask export` made, a"
        f" file of weights ({' '.join(ENDINGS)}), timm:NAME (as in timm.list_models(pretrained=True)) or hf:NAME"
    )


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
