"""The ground truth of revisited Oxford and Paris (Radenović et al., 2018), as their `gnd_*.pkl` have it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomask.data.plain_pickle import read_plain_pickle

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, kw_only=True)
class GroundTruth:
    """Which images of a database show what a query shows.

    Attributes:
        database: names of the images that are searched, without an ending.
        queries: names of the images that are searched for.
        boxes: of each query, where in its image the building is.
        easy: of each query, the numbers of the database's images that show it plainly.
        hard: those that show it in a difficult way: small, from the side, by night, behind something.
        junk: those that show too little of it to count, for or against.
    """

    database: list[str]
    queries: list[str]
    boxes: list[Box]
    easy: list[list[int]]
    hard: list[list[int]]
    junk: list[list[int]]


def read_ground_truth(path: Path) -> GroundTruth:
    """The content of a `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl`; nothing in it is run.

    Raises:
        ValueError: no such file, no pickle of plain values, or one of something else.
    """
    content = read_plain_pickle(path)
    try:
        database, queries, rows = content["imlist"], content["qimlist"], content["gnd"]
        found = GroundTruth(
            database=_names(database),
            queries=_names(queries),
            boxes=[_box(row["bbx"]) for row in rows],
            easy=[_numbers(row["easy"], len(database)) for row in rows],
            hard=[_numbers(row["hard"], len(database)) for row in rows],
            junk=[_numbers(row["junk"], len(database)) for row in rows],
        )
        if len(rows) != len(queries) or not rows:
            raise ValueError(f"{len(queries)} queries, {len(rows)} rows")
    except (LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no ground truth of revisited Oxford or Paris: it must hold imlist, qimlist and gnd, and of each query"
            f" bbx, easy, hard and junk ({type(error).__name__}: {error})"
        ) from error
    return found


def _names(values: Any) -> list[str]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError("names must be a list of strings")
    return values


def _box(values: Sequence[float]) -> Box:
    left, top, right, bottom = map(float, values)
    if not (left < right and top < bottom):
        raise ValueError(f"a box must have an extent, unlike {list(values)}")
    return left, top, right, bottom


def _numbers(values: Sequence[int], length: int) -> list[int]:
    numbers = [int(value) for value in values]
    if any(not 0 <= number < length for number in numbers):
        raise ValueError(f"there are numbers beyond the {length} images of the database")
    return numbers
