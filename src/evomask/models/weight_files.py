"""Files of weights -> named tensors, without running code that a file may hold."""

import argparse
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.state_dict_loader import load

MANIFEST = "manifest.json"
"""What shows that a folder is a checkpoint of a run: its step, and the checksums of its files."""

ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
FOLDER_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""How a folder in the format of transformers keeps its weights; the first that is there counts."""

WRAPPERS = ("model_ema", "state_dict_ema", "teacher", "state_dict", "model", "module", "student")
"""Under what names training programs keep the weights beside optimiser and the like: the averaged ones first."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, by name, on the CPU; out of their wrappers, and without DataParallel's and compile's prefixes.

    Args:
        path: .safetensors, or what torch.save wrote (.pth, .pt, .bin).

    Raises:
        ValueError: there is no such file, it has another ending or no tensors, is damaged, or would have to run code.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path} is no file of weights: its name must end in one of {' '.join(ENDINGS)}")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    weights = _unwrap(content)
    if not weights:
        raise ValueError(f"{path} holds no named tensors{_contents(content)}")
    return clean_state_dict(weights)


def read_folder_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a folder in the format of transformers, in one file or in several with an index.

    Raises:
        ValueError: there are none, or a file cannot be read.
    """
    path = next((folder / name for name in FOLDER_FILES if (folder / name).is_file()), None)
    if path is None:
        raise ValueError(f"{folder} has no weights: none of {', '.join(FOLDER_FILES)} is there")
    if path.suffix != ".json":
        return read_weights(path)
    try:
        parts = sorted(set(json.loads(path.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no index of weight files") from error
    return {key: tensor for part in parts for key, tensor in read_weights(folder / part).items()}


def read_shards(folder: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a run's checkpoint whose names begin so, put together from its shards, without that beginning.

    Raises:
        ValueError: a file is damaged or missing.
    """
    try:
        missing = [name for name in json.loads((folder / MANIFEST).read_text())["files"] if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(missing[0])
        reader = HuggingFaceStorageReader(str(folder))
        described: dict[str, Any] = reader.read_metadata().state_dict_metadata
        wanted = {name: each for name, each in described.items() if name.startswith(prefix)}
        tensors = {name: torch.empty(each.size, dtype=each.properties.dtype) for name, each in wanted.items()}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # one process reads on its own
            load(tensors, storage_reader=reader, no_dist=True)
    except (SafetensorError, CheckpointException, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{folder} is no whole checkpoint: a file is damaged or missing") from error
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}


def json_or_nothing(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def one_line(error: Exception) -> str:
    """What an error says, in one line that is not too long; its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] or type(error).__name__


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises an Exception of its own
        raise ValueError(f"{path} is no safetensors file, or not a whole one") from error


def _read_pickle(path: Path) -> Any:
    try:
        # A plain holder of a program's arguments, which many training programs put beside the weights: it runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript archives, which are refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own reasons are long, and advise to run whatever the file holds.
        reason = _why_refused(path, str(error)) or f"{path} is no file that torch.save wrote, or not a whole one"
        raise ValueError(reason) from error


def _why_refused(path: Path, message: str) -> str | None:
    """What to do about a file that would run code when it is opened; None for a file that is no weights at all."""
    if "TorchScript" in message:
        state = f"torch.jit.load({path.name!r}, map_location='cpu').state_dict()"
        return f"{path} holds a TorchScript program, which is not run: if you trust it, torch.save({state}, 'weights.pth')"
    found = re.search(r"GLOBAL ([\w.]+)", message)
    if found is None:
        return None
    return (
        f"{path} holds more than weights ({found[1]}), and to open it could run any code: if you trust it, save its tensors"
        f" alone, with torch.load({path.name!r}, weights_only=False) and torch.save(..., 'weights.pth')"
    )


def _unwrap(content: Any) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        wrapper = next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)
        if wrapper is None:
            return {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        content = content[wrapper]
    return {}


def _contents(content: Any) -> str:
    return f", only {', '.join(map(str, list(content)[:5]))}" if isinstance(content, Mapping) and content else ""
