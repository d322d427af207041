"""How good a ranking is, as revisited Oxford and Paris count it (Radenović et al., 2018).

A ranking is known by the ranks, from 0, of what is right for the query and of what is junk. Junk is taken out of it before
anything is counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]

CUTS = (1, 5, 10)
"""Numbers of best ranked images of which the precision is measured."""


@dataclass(frozen=True)
class RankedQuery:
    """One query's ranking.

    Attributes:
        positives: ranks of what is right, from 0.
        junk: ranks of what is passed over.
    """

    positives: Numbers
    junk: Numbers

    def ranks(self) -> Numbers:
        """Of what is right, ascending, as if there were no junk."""
        positives, junk = np.sort(self.positives), np.sort(self.junk)
        return positives - np.searchsorted(junk, positives)


def average_precision(ranks: Numbers) -> float:
    """The area below the curve of precision over recall, by trapezoids; from 0 to 1.

    Args:
        ranks: of all that is right, from 0, ascending, without junk.
    """
    found = np.arange(len(ranks))
    before = np.where(ranks == 0, 1.0, found / np.maximum(ranks, 1))
    after = (found + 1) / (ranks + 1)
    return float((before + after).mean() / 2)


def precision_at(ranks: Numbers, cut: int) -> float:
    """The share of right ones among the first `cut`; or, where all that is right comes earlier, down to the last of it.

    Args:
        ranks: as of `average_precision`.
        cut: from 1.
    """
    seen = min(int(ranks.max()) + 1, cut)
    return float((ranks < seen).sum() / seen)


def mean_metrics(queries: Sequence[RankedQuery]) -> dict[str, float]:
    """`map`, `mp1`, `mp5`, `mp10` in percent, means over the queries that have something right; and their number, `queries`.

    Raises:
        ValueError: no query has.
    """
    ranked = [query.ranks() for query in queries if len(query.positives)]
    if not ranked:
        raise ValueError("no query has a right image in the gallery: there is nothing to measure")
    metrics = {"map": 100 * float(np.mean([average_precision(ranks) for ranks in ranked]))}
    for cut in CUTS:
        metrics[f"mp{cut}"] = 100 * float(np.mean([precision_at(ranks, cut) for ranks in ranked]))
    return metrics | {"queries": len(ranked)}
