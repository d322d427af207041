"""Means of a few runs, and how sure one may be of them."""

import math
import statistics
from collections.abc import Sequence

STUDENT_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""97.5% quantiles for 1, 2, 3, ... degrees of freedom."""


def half_width(values: Sequence[float]) -> float | None:
    """Of the 95% confidence interval of the mean (Student's t); None for fewer than two values.

    For two means of the same seeds give their differences: paired, they do not vary by what seeds have in common.
    """
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    t = STUDENT_T[freedom - 1] if freedom <= len(STUDENT_T) else 1.96 + 2.4 / freedom  # to 0.5%
    return t * statistics.stdev(values) / math.sqrt(len(values))


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and half width, as `+1.9 ± 1.7` with `sign="+"`."""
    half = half_width(values)
    mean = f"{statistics.mean(values):{sign}.1f}"
    return mean if half is None else f"{mean} ± {half:.1f}"
