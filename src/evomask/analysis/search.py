"""Exact search by inner product among descriptors that need not fit into memory.

Nothing here holds the similarities of all queries to all descriptors, nor a full ranking. A block of descriptors at a time is
compared with a block of queries, and what is kept is what is asked for: the nearest few, or the ranks of some.
"""

import importlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Numbers = NDArray[np.int64]

QUERIES_AT_A_TIME = 1024


class Descriptors(Protocol):
    """Rows of numbers, wherever they lie."""

    def __len__(self) -> int: ...

    def rows(self, first: int, end: int) -> Tensor:
        """(end - first, D) float32 on the CPU, fewer at the end."""
        ...


class Held:
    """Descriptors (n, D) that are in memory."""

    def __init__(self, descriptors: Tensor):
        self._descriptors = descriptors

    def __len__(self) -> int:
        """Rows."""
        return len(self._descriptors)

    def rows(self, first: int, end: int) -> Tensor:
        """(end - first, D) float32, fewer at the end."""
        return self._descriptors[first:end].float()


def nearest(
    queries: Descriptors,
    database: Descriptors,
    count: int,
    *,
    block: int = 16_384,
    device: torch.device | str = "cpu",
    faiss: bool = False,
) -> tuple[Tensor, Tensor]:
    """The nearest of the database to each query, by inner product, and how near they are.

    Args:
        queries: Q rows.
        database: N rows of the same width.
        count: how many, at most N.
        block: rows of the database at a time.
        device: to compute on.
        faiss: let faiss search a block, on the CPU, instead of torch.

    Returns:
        Numbers (Q, count) long, nearest first, and similarities (Q, count) float32, on the CPU.

    Raises:
        ValueError: faiss is asked for, and is not installed.
    """
    count = min(count, len(database))
    library = _faiss() if faiss else None
    numbers, scores = [], []
    for first_query in range(0, len(queries), QUERIES_AT_A_TIME):
        part = queries.rows(first_query, first_query + QUERIES_AT_A_TIME)
        best_scores, best = torch.empty(len(part), 0), torch.empty(len(part), 0, dtype=torch.long)
        for first in range(0, len(database), block):
            rows = database.rows(first, first + block)
            few = min(count, len(rows))
            if library is None:
                found_scores, found = (each.cpu() for each in (part.to(device) @ rows.to(device).T).topk(few, dim=1))
            else:
                distances, places = library.knn(part.numpy(), rows.numpy(), few, metric=library.METRIC_INNER_PRODUCT)
                found_scores, found = torch.from_numpy(distances), torch.from_numpy(places)
            # Stable, so that of equals those of an earlier block stay first; within a block topk takes them as they come.
            candidates = torch.cat((best_scores, found_scores), dim=1)
            best_scores, order = candidates.sort(dim=1, descending=True, stable=True)
            best_scores, order = best_scores[:, :count], order[:, :count]
            best = torch.cat((best, found + first), dim=1).gather(1, order)
        numbers.append(best)
        scores.append(best_scores)
    return torch.cat(numbers), torch.cat(scores)


def ranks(
    queries: Descriptors,
    database: Descriptors,
    wanted: Sequence[Numbers],
    *,
    block: int = 16_384,
    device: torch.device | str = "cpu",
) -> list[Numbers]:
    """At which place, from 0, some of the database come when all of it is ordered by similarity to a query.

    The rank of an image is the number of those that are nearer, which are counted block by block; of equally near ones the
    first in the database counts as the nearer.

    Args:
        queries: Q rows.
        database: N rows of the same width.
        wanted: of each query, the numbers of those whose ranks are asked for.
        block: rows of the database at a time.
        device: to compute on.

    Returns:
        Of each query, the ranks of its wanted ones, in their order.
    """
    found: list[Numbers] = []
    for first_query in range(0, len(queries), QUERIES_AT_A_TIME):
        part = queries.rows(first_query, first_query + QUERIES_AT_A_TIME).to(device)
        of_part = wanted[first_query : first_query + len(part)]
        counters = [_RankCounter(numbers, device) for numbers in of_part]
        # Twice through the database in the same blocks, so that a similarity is the same number each time.
        for look in (_RankCounter.note, _RankCounter.count):
            for first, similarity in _similarities(part, database, block, device):
                for counter, row in zip(counters, similarity, strict=True):
                    look(counter, first, row)
        found += [counter.ranks() for counter in counters]
    return found


def _similarities(part: Tensor, database: Descriptors, block: int, device: torch.device | str) -> Iterator[tuple[int, Tensor]]:
    for first in range(0, len(database), block):
        yield first, part @ database.rows(first, first + block).to(device).T


class _RankCounter:
    """Of one query: first the similarities of the wanted are noted, then those of all are compared with them."""

    def __init__(self, wanted: Numbers, device: torch.device | str):
        self._wanted = torch.from_numpy(wanted).to(device)
        self._similarity = torch.zeros(len(wanted), device=device)
        self._sorted: tuple[Tensor, Tensor] | None = None
        # Place j: how many of the database are above the j least similar of the wanted, and no more of them.
        self._above = torch.zeros(len(wanted) + 1, dtype=torch.long, device=device)
        self._tied = torch.zeros(len(wanted), dtype=torch.long, device=device)

    def note(self, first: int, row: Tensor) -> None:
        """The similarities of a block that begins at number `first`."""
        here = (self._wanted >= first) & (self._wanted < first + len(row))
        self._similarity[here] = row[self._wanted[here] - first]

    def count(self, first: int, row: Tensor) -> None:
        """The same block once more."""
        if self._sorted is None:
            self._sorted = self._similarity.sort()
        levels, order = self._sorted
        below = torch.searchsorted(levels, row)
        self._above += below.bincount(minlength=len(self._above))
        # Few are exactly as near as one that is wanted: mostly these themselves.
        equal = (torch.searchsorted(levels, row, right=True) != below).nonzero()[:, 0]
        same = row[equal] == levels.unsqueeze(1)
        earlier = (equal + first) < self._wanted[order].unsqueeze(1)
        self._tied[order] += (same & earlier).sum(dim=1)

    def ranks(self) -> Numbers:
        """Of the wanted, in their order."""
        if self._sorted is None:
            return np.empty(0, np.int64)
        _, order = self._sorted
        nearer = torch.empty_like(self._tied)
        # One whose similarity is above j of the levels is nearer than the j least similar ones.
        nearer[order] = self._above.flip(0).cumsum(0).flip(0)[1:]
        return (nearer + self._tied).cpu().numpy()


def _faiss() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ValueError("faiss is not installed: pip install faiss-cpu, or search with torch, which finds the same") from error
