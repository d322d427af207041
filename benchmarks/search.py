"""How much memory an exact search among a million descriptors takes, and how long.

    python benchmarks/search.py --count 1000000 --width 2048 --queries 70

Descriptors are made up, of length 1, and written to a file in --folder, 8.2 GB at these sizes, which is deleted at the end.
As `evomask evaluate retrieval` does, the ranks of some of them and the nearest few are searched for. Memory is the process's
largest resident set; what it had grown to before the search stands beside it.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from evomask.analysis.search import nearest, ranks
from evomask.benchmarks.comparison import circumstances
from evomask.data.descriptor_file import DescriptorFile, DescriptorWriter

ROWS_AT_A_TIME = 4096
WANTED, NEAREST = 100, 100
"""Whose ranks are asked for, of each query; and how many of the nearest."""


def main() -> None:
    """Make the descriptors, search, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="descriptors that are searched in")
    parser.add_argument("--width", type=int, default=2048, help="numbers of each")
    parser.add_argument("--queries", type=int, default=70, help="revisited Oxford and Paris have 70")
    parser.add_argument("--block", type=int, default=16_384, help="descriptors that are compared at a time")
    parser.add_argument("--folder", type=Path, help="where there is room for them; none: that for temporary files")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        gallery = made_up(Path(folder) / "gallery.npy", arguments.count, arguments.width)
        queries = made_up(Path(folder) / "queries.npy", arguments.queries, arguments.width)
        generator = np.random.default_rng(0)
        wanted = [generator.choice(arguments.count, WANTED, replace=False) for _ in range(arguments.queries)]
        before, start = peak(), time.perf_counter()
        ranks(queries, gallery, wanted, block=arguments.block)
        ranked, counted = peak(), time.perf_counter()
        nearest(queries, gallery, NEAREST, block=arguments.block)
        found = time.perf_counter()
    print(f"{arguments.queries} queries, {arguments.count} descriptors of {arguments.width}, blocks of {arguments.block}")
    print(f"peak memory, MB: {before:.0f} before the search, {ranked:.0f} after the ranks, {peak():.0f} after the nearest")
    print(f"seconds: {counted - start:.0f} for the ranks of {WANTED} a query, {found - counted:.0f} for the nearest {NEAREST}")
    print(json.dumps(circumstances()))


def made_up(path: Path, count: int, width: int) -> DescriptorFile:
    """Descriptors of length 1 in every direction alike."""
    writer, generator = DescriptorWriter(path, count, width), torch.Generator().manual_seed(count)
    for first in range(0, count, ROWS_AT_A_TIME):
        rows = torch.randn(min(ROWS_AT_A_TIME, count - first), width, generator=generator)
        writer.write(first, torch.nn.functional.normalize(rows, dim=1))
    return DescriptorFile(path)


def peak() -> float:
    """The largest resident set so far, in MB of 10^6 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    main()
