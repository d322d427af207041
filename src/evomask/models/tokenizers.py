"""Every kind of tokenizer, by what its config.json calls itself; and one that a user names, with the digest of its files."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from huggingface_hub import snapshot_download
from safetensors.torch import save_file

from evomask.models.dalle import DalleTokenizer
from evomask.models.discrete_vae import DiscreteVAE, DiscreteVAEConfig
from evomask.models.tokenizer import Tokenizer
from evomask.models.weight_files import FOLDER_FILES, json_or_nothing, one_line, read_weights

OWN = "evomask_discrete_vae"
EXPORT = "tokenizer"
"""Where a run of `evomask train-tokenizer` leaves it, in its folder."""


def _load_own(folder: Path) -> Tokenizer:
    config = json_or_nothing(folder / "config.json")
    try:
        model = DiscreteVAEConfig(**config["model"] | {"levels": tuple(config["model"]["levels"])}).build()
        model.load_state_dict(read_weights(folder / "model.safetensors"))
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{folder} holds no whole tokenizer of this version of evomask: {one_line(error)}") from error
    return model


KINDS: dict[str, Callable[[Path], Tokenizer]] = {OWN: _load_own, "flava_image_codebook": DalleTokenizer.load}
"""`model_type` in config.json -> a function that reads such a folder. A further tokenizer is its own file and a line here."""


def load_tokenizer(name: str, sha256: str | None = None) -> tuple[Tokenizer, str]:
    """The tokenizer that a user names, frozen; and the digest of its files.

    Args:
        name: a run of `evomask train-tokenizer`, a folder with config.json and weights, or hf:NAME of the hub.
        sha256: the digest that its files must have; None: any.

    Raises:
        ValueError: there is none, it cannot be read, or it is another one than the digest says.
    """
    folder = _folder_of(name)
    digest = _digest(folder)
    if sha256 not in (None, digest):
        raise ValueError(
            f"the tokenizer {name} is not the one that this run began with (its files have sha256 {digest[:12]}..., not "
            f"{sha256[:12]}...): put that one back; a run on other tokens is a new one"
        )
    kind = json_or_nothing(folder / "config.json").get("model_type")
    if kind not in KINDS:
        raise ValueError(f"{name} is no tokenizer: the model_type of its config.json is {kind!r}, none of {', '.join(KINDS)}")
    return KINDS[kind](folder).eval().requires_grad_(False), digest


def save_tokenizer(model: DiscreteVAE, folder: Path) -> None:
    """Write a folder that `load_tokenizer` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": OWN, "model": asdict(model.config)}, indent=2) + "\n")


def _folder_of(name: str) -> Path:
    if name.startswith("hf:"):
        return _fetched(name.removeprefix("hf:"), name)
    folder = Path(name)
    if not folder.is_dir():
        raise ValueError(f"there is no tokenizer {name}: name a run of `evomask train-tokenizer`, a folder or hf:NAME")
    if "config" not in json_or_nothing(folder / "config.json"):
        return folder
    if not (folder / EXPORT / "config.json").is_file():
        raise ValueError(f"the run {folder} has left no tokenizer: `evomask resume {folder}` goes on with it, if it trains one")
    return folder / EXPORT


def _fetched(repository: str, name: str) -> Path:
    if Path(repository).is_dir():
        return _folder_of(repository)
    try:
        folder = Path(snapshot_download(repository, allow_patterns=["config.json", "model.safetensors"]))
        if not (folder / "model.safetensors").is_file():
            snapshot_download(repository, allow_patterns=["pytorch_model.bin"])
    except Exception as error:  # whatever the hub's client and the network below it give rise to
        raise ValueError(f"{name} cannot be fetched: {one_line(error)}") from error
    return folder


def _digest(folder: Path) -> str:
    """Of the configuration and the weights."""
    weights = next((folder / file for file in FOLDER_FILES if (folder / file).is_file()), None)
    if weights is None or weights.suffix == ".json" or not (folder / "config.json").is_file():
        raise ValueError(f"{folder} is no tokenizer: it has no config.json beside a model.safetensors or pytorch_model.bin")
    digest = hashlib.sha256()
    for path in (folder / "config.json", weights):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
