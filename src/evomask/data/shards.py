"""What all shards have in common: which files they are, and how their classes are called."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CLASS_NAMES = "classes.txt"
SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Words in the names of shards, and the split that they stand for."""


def check_one_split(paths: Iterable[str], root: str) -> None:
    """Raise a ValueError where some of these shards belong to another split than others, by the words in their names."""
    examples: dict[frozenset[str], str] = {}
    for path in paths:
        name = os.path.basename(path)
        splits = frozenset(SPLITS[word] for word in re.findall(r"[a-z]+", name.lower()) if word in SPLITS)
        examples.setdefault(splits, name)
    if len(examples) > 1:
        pattern = re.sub(r"\d+(-of-\d+)?(?=[.])", "*", min(examples.values()))
        two = " and ".join(sorted(examples.values())[:2])
        raise ValueError(f"{root} holds shards of several splits, {two} for two: name those of one by a pattern, '{pattern}'")


def class_names(labels: NDArray[np.int32], names: list[str] | None, file: str) -> list[str]:
    """The names of the labels, from the shards themselves or from `classes.txt` beside them, a line each; else their numbers.

    Args:
        labels: of all images; where any is negative, images are taken to have no labels, and there are no names.
        names: what the shards themselves say; None for nothing.
        file: one of the shards.

    Raises:
        ValueError: fewer names than labels.
    """
    if labels.min() < 0:
        return []
    beside = Path(file).parent / CLASS_NAMES
    if names is None and beside.is_file():
        names = beside.read_text().splitlines()
    count = int(labels.max()) + 1
    if names is None:
        return [str(label) for label in range(count)]
    if len(names) < count:
        raise ValueError(
            f"{Path(file).parent} has images of class {count - 1}, counted from 0, but names of {len(names)} classes"
        )
    return names
