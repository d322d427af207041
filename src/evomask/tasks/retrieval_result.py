"""What is made of a search: how good it is, what was found for each query, and the images to show it by."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from evomask.analysis.average_precision import RankedQuery, average_precision, mean_metrics
from evomask.data.retrieval_sets import Numbers, Relevant, RetrievalSet, Verdict
from evomask.data.scaled_images import ScaledImages, thumbnail
from evomask.data.spread import spread
from evomask.engine.run import write_atomically

NEAREST = 10
"""How many of the gallery are written down for each query."""
SHOWN = "shown.safetensors"
SHOWN_QUERIES, SHOWN_NEAREST = 8, 5
_SIDE = 128


def numbers_to_rank(tested: RetrievalSet) -> list[Numbers]:
    """Of each query, all that any protocol has something to say about; ascending."""
    of_queries = zip(*tested.protocols.values(), strict=True)
    return [np.unique(np.concatenate([part for one in each for part in (one.positives, one.junk)])) for each in of_queries]


def measure(tested: RetrievalSet, numbers: Sequence[Numbers], ranks: Sequence[Numbers]) -> dict[str, float]:
    """The metrics of every protocol, and `chance`, the mean average precision of a random order.

    Args:
        tested: queries and gallery.
        numbers: of each query, see `numbers_to_rank`.
        ranks: at which place, from 0, they came.
    """
    generator = np.random.default_rng(0)
    by_chance = [generator.permutation(len(tested.gallery))[each] for each in numbers]
    metrics: dict[str, float] = {}
    for protocol, relevant in tested.protocols.items():
        found, random = (mean_metrics(list(map(_ranked, relevant, numbers, order))) for order in (ranks, by_chance))
        found["chance"] = random["map"]
        metrics |= {f"{protocol}_{name}" if protocol else name: value for name, value in found.items()}
    return metrics


def write_nearest(path: Path, tested: RetrievalSet, best: Tensor, numbers: Sequence[Numbers], ranks: Sequence[Numbers]) -> None:
    """A line for each query: its average precision, none where nothing is right, and the nearest images with their verdicts."""
    lines = []
    for index, relevant in enumerate(tested.protocols[tested.shown]):
        order = _ranked(relevant, numbers[index], ranks[index]).ranks()
        row = {
            "query": tested.queries.name(index),
            "average_precision": average_precision(order) if len(order) else None,
            "nearest": [[tested.gallery.name(found), relevant.verdict(found)] for found in best[index].tolist()],
        }
        lines.append(json.dumps(row) + "\n")
    write_atomically(path, "".join(lines))


def keep_shown(path: Path, tested: RetrievalSet, best: Tensor) -> None:
    """Some queries from all over, and what was found for each, small: all that a picture takes."""
    queries = ScaledImages(tested.queries, tested.boxes, 1, (1.0,), (1, 1))
    relevant = tested.protocols[tested.shown]
    rows, verdicts = [], []
    for query in spread(SHOWN_QUERIES, len(tested.queries)):
        found = best[query, :SHOWN_NEAREST].tolist()
        pictures = [queries.original(query)[0], *map(tested.gallery.image, found)]
        rows.append(torch.stack([thumbnail(picture, _SIDE) for picture in pictures]))
        verdicts.append([relevant[query].verdict(number) for number in found])
    save_file({"images": torch.stack(rows)}, path, metadata={"verdicts": json.dumps(verdicts)})


def load_shown(path: Path) -> tuple[Tensor, list[list[Verdict]]]:
    """(queries, 1 + n, C, H, W) uint8, each query first and then what was found, nearest first; and verdicts on the latter."""
    with safe_open(path, "pt") as file:
        return file.get_tensor("images"), json.loads(file.metadata()["verdicts"])


def _ranked(relevant: Relevant, numbers: Numbers, ranks: Numbers) -> RankedQuery:
    positives, junk = (ranks[np.searchsorted(numbers, part)] for part in (relevant.positives, relevant.junk))
    return RankedQuery(positives, junk)
