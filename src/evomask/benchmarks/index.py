"""The index of a data set of ImageNet's size: to make it, to load it, and what it costs a process that loads images."""

import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from multiprocessing.synchronize import Barrier
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torchvision.datasets import ImageFolder as TorchvisionFolder

from evomask.benchmarks.comparison import Comparison, compare
from evomask.benchmarks.layouts import HUB_ROW_GROUP, cache_in, write_folder, write_parquet, write_tar
from evomask.data.layouts import open_encoded

Look = Callable[[int], object]
"""Look up the name and label of an image by its number."""


@dataclass(frozen=True, kw_only=True)
class IndexConfig:
    """Files of a few bytes, in a folder with sub-folders, in tar shards, and in parquet shards where pyarrow is installed.

    Attributes:
        images: how many; ImageNet-1K has 1,281,167.
        classes: sub-folders.
        workers: processes whose memory is measured, all at the same time.
        turns: of all candidates, over which medians are taken.
        scratch: a folder to write to, with room for 5 GB and as many files as there are images. None: the system's own.
    """

    images: int = 100_000
    classes: int = 1_000
    workers: int = 2
    turns: int = 3
    scratch: Path | None = None

    def __post_init__(self):
        if min(self.images, self.classes, self.workers, self.turns) < 1:
            raise ValueError("--images, --classes, --workers and --turns must be at least 1")
        if self.scratch is not None and not self.scratch.is_dir():
            raise ValueError(f"there is no folder {self.scratch} for --scratch")


def compare_indices(config: IndexConfig) -> list[Comparison]:
    """A table for each layout: seconds to open the data set, and memory of a process that has looked up all its images.

    Beside the folder stands torchvision's ImageFolder, which keeps a list of paths and labels.
    """
    tables = []
    samples = [(b"%d" % number, number % config.classes) for number in range(config.images)]
    writers = {"image folder": write_folder, "tar shards": write_tar}
    if find_spec("pyarrow"):
        writers["parquet shards"] = lambda samples, folder: write_parquet(samples, folder, HUB_ROW_GROUP)
    for name, write in writers.items():
        with TemporaryDirectory(dir=config.scratch) as temporary, cache_in(Path(temporary) / "cache") as cache:
            root = Path(temporary) / "images"
            write(samples, root)
            _age(root)
            tables.append(_compare(name, root, cache, config))
    return tables


def _compare(name: str, root: Path, cache: Path, config: IndexConfig) -> Comparison:
    def make() -> None:
        for file in cache.glob("*.safetensors"):
            file.unlink()
        open_encoded(root)

    candidates = {"evomask, index made": make, "evomask, index there": lambda: open_encoded(root)}
    if name == "image folder":
        candidates["torchvision"] = lambda: TorchvisionFolder(root)
    table = compare(f"{name}: opening {config.images} images, ms", candidates, torch.device("cpu"), config.turns)
    if sys.platform != "linux":
        return table
    os.sync()  # pages of a file that were just written would count as the process's own
    source = open_encoded(root)
    rows = {row.name: row for row in table.rows}
    looks: dict[str, Look] = {"evomask, index there": lambda index: (source.name(index), source.label(index))}
    if name == "image folder":
        looks["torchvision"] = TorchvisionFolder(root).samples.__getitem__
    for row, look in looks.items():
        own, share = _memory(look, config)
        rows[row] = replace(rows[row], own_mib=own, share_mib=share)
    return Comparison(table.title, list(rows.values()))


def _memory(look: Look, config: IndexConfig) -> tuple[float, float]:
    """MiB that a forked process gains by looking up all images: pages of its own, and its share of all pages it has."""
    context = multiprocessing.get_context("fork")  # it inherits what the parent holds, as a DataLoader's worker does
    barrier, results = context.Barrier(config.workers), context.SimpleQueue()
    workers = [
        context.Process(target=_look_up_all, args=(look, config.images, barrier, results)) for _ in range(config.workers)
    ]
    for worker in workers:
        worker.start()
    found = [results.get() for _ in workers]
    for worker in workers:
        worker.join()
    own, share = (max(values) / 2**10 for values in zip(*found, strict=True))
    return own, share


def _look_up_all(look: Look, count: int, barrier: Barrier, results: "multiprocessing.SimpleQueue[tuple[int, int]]") -> None:
    before = _kib()
    barrier.wait()
    for index in range(count):
        look(index)
    barrier.wait()  # pages are shared as long as the others have them too
    after = _kib()
    barrier.wait()
    results.put((after[0] - before[0], after[1] - before[1]))


def _kib() -> tuple[int, int]:
    """Private pages that were written to, and pages divided by the number of processes that share them."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    private, share = (re.search(rf"^{name}:\s+(\d+) kB", rollup, re.MULTILINE) for name in ("Private_Dirty", "Pss"))
    assert private and share
    return int(private[1]), int(share[1])


def _age(root: Path) -> None:
    """Let it look as if it had been at rest for long: an index of what has only just been written would not be kept."""
    for path in (root, *root.iterdir()):  # sub-folders, or shards
        os.utime(path, (0, 0))
