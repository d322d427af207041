"""What pretraining, a tokenizer's training and every evaluation leave behind when they are done: result.json."""

import json
from pathlib import Path
from typing import Any

from evomask.engine.run import make_folder, provenance, to_dict, write_atomically

RESULT = "result.json"
"""In the folder that a command makes: where it is there, nothing is left to be computed."""


def make_result_folder(folder: Path) -> None:
    """Make the folder before the work begins, so that a result never overwrites another.

    Raises:
        ValueError: there is a result in it already, or it cannot be made.
    """
    if (folder / RESULT).exists():
        raise ValueError(f"{folder} holds a result already: choose another --out")
    make_folder(folder)


def write_result(path: Path, task: str, metrics: dict[str, Any], config: dict[str, Any]) -> Path:
    """Write `{"task", "metrics": {name: number}, "config", "versions", ...}`; returns the path."""
    record = {"task": task, "metrics": metrics, "config": {name: to_dict(part) for name, part in config.items()}}
    write_atomically(path, json.dumps(record | provenance(), indent=2) + "\n")
    return path
