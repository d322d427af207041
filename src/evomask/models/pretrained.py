"""Weights of other code bases and of runs -> the timm model that they are for, and an account of what was loaded."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import timm
from torch import Tensor, nn

from evomask.models.architecture import Hints, build_for
from evomask.models.hosts import HOSTS
from evomask.models.layouts import LAYOUTS, EncoderWeights, read_layout
from evomask.models.weight_files import json_or_nothing, one_line, read_folder_weights, read_shards, read_weights

LEAST_FIT = 0.9
"""Share of the tensors that must fit; below, the model is another than the file's."""

ACTIVATIONS = {"gelu": "gelu", "quick_gelu": "quick_gelu", "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
"""Of transformers -> of timm."""

NAMED = 5
"""How many keys a message names."""


@dataclass(frozen=True)
class Pretrained:
    """A timm model with weights.

    Attributes:
        model: the timm model; timm has no class for all of them.
        mean, std: of a channel of images in [0, 1]. None: it is not known how the images were normalised.
        account: one line about what was loaded, what was missing and what was left out.
        cell: see `Encoder`.
    """

    model: Any
    mean: Sequence[float] | None
    std: Sequence[float] | None
    account: str
    cell: int | None = None


def load_timm(name: str, source: str) -> Pretrained:
    """A pretrained model of timm's, or of a folder in timm's format (`local-dir:FOLDER`), with its classifier if it has one.

    Args:
        name: as `timm.create_model` takes it.
        source: what the user called it.

    Raises:
        ValueError: timm has no such model, or cannot load it.
    """
    try:
        model: Any = timm.create_model(name, pretrained=True)
    except Exception as error:  # whatever the hub's client, the network below it or the files give rise to
        similar = [] if timm.is_model(name) else get_close_matches(name, timm.list_models(pretrained=True), n=1)
        hint = f": did you mean timm:{similar[0]}?" if similar else ""
        raise ValueError(f"{source} cannot be loaded by timm: {one_line(error)}{hint}") from error
    config = model.pretrained_cfg
    # timm loads strictly: it raises where a tensor is missing or one too many.
    return Pretrained(model, config["mean"], config["std"], f"loaded all {len(model.state_dict())} tensors, by timm")


def load_file(path: Path, known: Mapping[str, Any] | None = None) -> Pretrained:
    """The encoder in a file of weights, in any of LAYOUTS.

    Args:
        path: the file.
        known: fields of `Hints` that the user has named.

    Raises:
        ValueError: it cannot be read, is of no known layout, or fits no model by 90%.
    """
    return _load(read_weights(path), known or {}, path)


def load_transformers(folder: Path) -> Pretrained:
    """The encoder in a folder in the format of transformers, which itself need not be installed.

    Raises:
        ValueError: as for `load_file`, or its config.json asks for something that timm has not.
    """
    config = json_or_nothing(folder / "config.json")
    config = config.get("vision_config", config)  # CLIP's is that of two towers
    known: dict[str, Any] = {"heads": config.get("num_attention_heads"), "eps": config.get("layer_norm_eps")}
    if "image_size" in config:
        size = config["image_size"]
        known["image_size"] = (size, size) if isinstance(size, int) else tuple(size)
    if "hidden_act" in config:
        if config["hidden_act"] not in ACTIVATIONS:
            raise ValueError(f"{folder} has the activation {config['hidden_act']!r}, which is none of {', '.join(ACTIVATIONS)}")
        known["activation"] = ACTIVATIONS[config["hidden_act"]]
    loaded = _load(read_folder_weights(folder), known, folder)
    images = json_or_nothing(folder / "preprocessor_config.json")
    if "image_mean" in images and "image_std" in images:
        return Pretrained(loaded.model, images["image_mean"], images["image_std"], loaded.account)
    return loaded


def _described_host(checkpoint: Path) -> dict[str, Any]:
    """What a run's config.json says of the model whose RUN/checkpoints/step_... this is; empty if there is none."""
    folders = checkpoint.resolve().parents
    config = json_or_nothing(folders[1] / "config.json").get("config", {}) if len(folders) > 1 else {}
    return config if "host" in config else {}


def load_checkpoint(folder: Path) -> Pretrained:
    """The encoder in a checkpoint of a pretraining run, built as the run's configuration says.

    Raises:
        ValueError: it cannot be read, or the configuration does not describe its encoder.
    """
    config = _described_host(folder)
    try:
        host = config["host"]
        encoder_config = get_type_hints(HOSTS[host.get("kind", "mae")])["encoder"]
        encoder = encoder_config(**host["encoder"] | {"image_size": tuple(host["encoder"]["image_size"])})
        mean, std = config["data"]["mean"], config["data"]["std"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"the config.json of its run does not describe the encoder of {folder}") from error
    model = encoder.build()
    weights, beside = {}, Counter()
    for name, tensor in read_shards(folder, "model.").items():
        part, _, rest = name.partition(".")
        if part == "encoder":
            weights[rest] = tensor
        else:
            beside[part] += 1
    account = _fill(model, EncoderWeights("a run of evomask", weights, beside), folder)
    return Pretrained(model, mean, std, account, host.get("cell"))


def _load(weights: Mapping[str, Tensor], known: Mapping[str, Any], source: Path) -> Pretrained:
    read = _renamed(weights, source)
    layout = LAYOUTS[read.layout]
    given = {name: value for name, value in known.items() if value is not None}
    try:
        model: Any = build_for(
            layout.family, read.weights, Hints(**{"activation": layout.activation, "eps": layout.eps} | given)
        )
    except ValueError as error:
        raise ValueError(f"{source} looks like {read.layout}, but {error}") from error
    account = _fill(model, read, source)
    if hasattr(model, "blocks"):  # what may have been guessed
        account += f"; {model.blocks[0].attn.num_heads} heads, {given.get('activation', layout.activation)}"
    mean, std = layout.normalisation if model.in_chans == len(layout.normalisation[0]) else (None, None)
    return Pretrained(model, mean, std, account)


def _renamed(weights: Mapping[str, Tensor], source: Path) -> EncoderWeights:
    try:
        return read_layout(weights)
    except ValueError as error:
        raise ValueError(f"{source} {error}") from error


def _fill(model: nn.Module, read: EncoderWeights, source: Path) -> str:
    """Load what fits; says what did.

    Raises:
        ValueError: less than LEAST_FIT of the tensors of model and file together.
    """
    own = model.state_dict()
    fitting = {key: tensor for key, tensor in read.weights.items() if key in own and own[key].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    besides = f"missing: {_listed(own.keys() - fitting)}; unexpected: {_listed(read.weights.keys() - fitting)}"
    together = len(own.keys() | read.weights.keys())
    if len(fitting) < LEAST_FIT * together:
        raise ValueError(
            f"{source} looks like {read.layout}, but only {len(fitting)} of {together} tensors fit the"
            f" {type(model).__name__} that it should be; {besides}"
        )
    left_out = ", ".join(f"{part} ({count})" for part, count in sorted(read.beside.items()))
    account = f"{read.layout}: loaded {len(fitting)} of {len(own)} tensors; {besides}"
    return f"{account}; left out: {left_out}" if left_out else account


def _listed(keys: Set[str]) -> str:
    more = f" and {len(keys) - NAMED} more" if len(keys) > NAMED else ""
    return (", ".join(sorted(keys)[:NAMED]) or "none") + more
