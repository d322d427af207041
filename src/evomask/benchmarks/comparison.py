"""Times of several candidates for the same work: taken in turns, as medians, and as ratios within a turn."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from rich.table import Table


@dataclass(frozen=True)
class Row:
    """A candidate's time.

    Attributes:
        name: the candidate.
        milliseconds: median over the turns, for one unit of work.
        ratio: median over the turns of its time over the first candidate's.
        least: the least such ratio.
        most: the largest.
        peak_mib: what it allocates on the GPU beyond what was there, in MiB; None on a CPU.
        agreement: of its trees with the exact ones, an adjusted Rand index; None where there is nothing to compare.
        own_mib: memory that a process that loads images has for itself, in MiB; None where it is not measured.
        share_mib: the same, and its share of what it has together with other processes.
    """

    name: str
    milliseconds: float
    ratio: float
    least: float
    most: float
    peak_mib: float | None = None
    agreement: float | None = None
    own_mib: float | None = None
    share_mib: float | None = None


@dataclass(frozen=True)
class Comparison:
    """Candidates for the same work; ratios are to the first."""

    title: str
    rows: list[Row]

    def table(self) -> Table:
        """As it is printed."""
        table = Table("", "ms", f"times {self.rows[0].name}", title=self.title, title_justify="left")
        optional = {
            "peak MiB": [row.peak_mib for row in self.rows],
            "trees' ARI": [row.agreement for row in self.rows],
            "MiB of a worker's own": [row.own_mib for row in self.rows],
            "with its share of others'": [row.share_mib for row in self.rows],
        }
        optional = {name: values for name, values in optional.items() if any(value is not None for value in values)}
        for name in optional:
            table.add_column(name)
        for number, row in enumerate(self.rows):
            spread = f"{row.ratio:.3g} ({row.least:.3g} to {row.most:.3g})"
            more = ("" if values[number] is None else f"{values[number]:.4g}" for values in optional.values())
            table.add_row(row.name, f"{row.milliseconds:.3f}", spread, *more)
        return table


def compare(
    title: str, candidates: Mapping[str, Callable[[], object]], device: torch.device, turns: int, units: int = 1
) -> Comparison:
    """Time the candidates, each once in every turn, so that what slows the machine for a while slows them all.

    Args:
        title: what the work is.
        candidates: by name; each is called once before the turns, for what only a first call pays.
        device: waited for before a time is taken.
        turns: how many.
        units: of work in a call, such as images; times are given for one.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    peaks: dict[str, float | None] = dict.fromkeys(candidates)
    for turn in range(turns + 1):
        for name, candidate in candidates.items():
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                torch.cuda.reset_peak_memory_stats(device)
                before = torch.cuda.memory_allocated(device)
            start = time.perf_counter()
            candidate()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
                peaks[name] = (torch.cuda.max_memory_allocated(device) - before) / 2**20
            elapsed = time.perf_counter() - start
            if turn > 0:
                seconds[name].append(elapsed)
    first = next(iter(seconds.values()))
    rows = []
    for name, own in seconds.items():
        ratios = [mine / base for mine, base in zip(own, first, strict=True)]
        median = 1e3 * statistics.median(own) / units
        rows.append(Row(name, median, statistics.median(ratios), min(ratios), max(ratios), peaks[name]))
    return Comparison(title, rows)


PEERS = ("scipy", "fastcluster", "transformers", "lightly")
LIBRARIES = (
    "evomask",
    "torch",
    "torchvision",
    "timm",
    "numba",
    "triton",
    "pillow",
    "simplejpeg",
    "torchcodec",
    "pyarrow",
    *PEERS,
)


def circumstances() -> dict[str, Any]:
    """The machine, and the versions of what computes and of what it is compared with."""
    versions: dict[str, str | None] = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    cpu = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    return {"python": platform.python_version(), "versions": versions, "gpu": gpu, **cpu}


def as_rows(comparisons: Iterable[Comparison]) -> list[dict[str, Any]]:
    """A dictionary a row, for JSON."""
    return [{"table": comparison.title, **asdict(row)} for comparison in comparisons for row in comparison.rows]
