"""One file = one benchmark: a table of times, each beside what it is compared with in the same process on the same input."""

from collections.abc import Callable

from evomask.benchmarks.comparison import Comparison
from evomask.benchmarks.hierarchy import HierarchyConfig, compare_hierarchies
from evomask.benchmarks.index import IndexConfig, compare_indices
from evomask.benchmarks.loader import LoaderConfig, compare_loaders
from evomask.benchmarks.overhead import OverheadConfig, compare_masks
from evomask.benchmarks.step import StepConfig, compare_steps

BENCHMARKS: dict[str, tuple[type, Callable[..., list[Comparison]]]] = {
    "hierarchy": (HierarchyConfig, compare_hierarchies),
    "overhead": (OverheadConfig, compare_masks),
    "loader": (LoaderConfig, compare_loaders),
    "index": (IndexConfig, compare_indices),
    "step": (StepConfig, compare_steps),
}
"""`evomask bench NAME`: the benchmark's options, and the function options -> tables. A benchmark is a line here."""
