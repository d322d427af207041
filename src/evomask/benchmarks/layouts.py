"""The same images in a folder, in tar and in parquet shards: how long reading them takes."""

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from evomask.benchmarks.comparison import Comparison, compare
from evomask.data.images import DecodedImages, EncodedImages
from evomask.data.layouts import open_encoded
from evomask.data.loader import load_batches
from evomask.data.pretraining import PretrainingImages
from evomask.data.sampler import StepSampler

HUB_ROW_GROUP = 100
"""Images in a row group, as `datasets` writes them."""

Sample = tuple[bytes, int]
"""An encoded image and its label."""


def write_folder(samples: Iterable[Sample], folder: Path) -> None:
    """Files in a sub-folder for each class."""
    for number, (data, label) in enumerate(samples):
        place = folder / f"{label:04}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:08}.jpg").write_bytes(data)


def write_tar(samples: Sequence[Sample], folder: Path, a_shard: int = 5_000) -> None:
    """Shards as WebDataset writes them."""
    folder.mkdir()
    for first in range(0, len(samples), a_shard):
        with tarfile.open(folder / f"{first // a_shard:06}.tar", "w") as tar:
            for number, (data, label) in enumerate(samples[first : first + a_shard], first):
                for ending, content in (("jpg", data), ("cls", b"%d" % label)):
                    member = tarfile.TarInfo(f"{number:08}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))


def write_parquet(samples: Sequence[Sample], folder: Path, row_group: int, a_shard: int = 5_000) -> None:
    """Shards as the hub has them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir()
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    for first in range(0, len(samples), a_shard):
        part = samples[first : first + a_shard]
        images = pa.array([{"bytes": data, "path": f"{n:08}.jpg"} for n, (data, _) in enumerate(part, first)], image)
        table = pa.table({"image": images, "label": pa.array([label for _, label in part], pa.int64())})
        pq.write_table(table, folder / f"train-{first // a_shard:05}.parquet", row_group_size=row_group)


def compare_layouts(
    files: Sequence[bytes], folder: Path, *, laid_out: int, images: int, size: int, batch_size: int, workers: int, turns: int
) -> list[Comparison]:
    """Tables in milliseconds an image: loading with workers in random order; reading alone, in random order and as they lie.

    The system keeps all files in memory after the first turn: what a disk or a network needs is not in these times. Without
    pyarrow there are no rows of parquet.

    Args:
        files: encoded images; at least a row group of different ones, since parquet stores equal ones in it once.
        folder: to write to.
        laid_out: images in each layout; the files are repeated.
        images: of them that a turn reads.
        size: of a crop.
        batch_size: images.
        workers: processes that load.
        turns: of all candidates.
    """
    samples = [(files[number % len(files)], number % 10) for number in range(laid_out)]
    write_folder(samples, folder / "folder")
    write_tar(samples, folder / "tar")
    layouts = {"image folder": "folder", "tar shards": "tar"}
    if find_spec("pyarrow"):
        for row_group in (HUB_ROW_GROUP, 10):
            write_parquet(samples, folder / f"parquet{row_group}", row_group)
            layouts[f"parquet, row groups of {row_group}"] = f"parquet{row_group}"
    sources = {name: open_encoded(folder / place) for name, place in layouts.items()}
    sampler = StepSampler(laid_out, batch_size, 0, range(images // batch_size))
    at_random = np.random.default_rng(0).integers(0, laid_out, images).tolist()

    def loading(source: EncodedImages) -> Callable[[], None]:
        crops = PretrainingImages(DecodedImages(source), (size, size), channels=3, patches=196, seed=0)
        return lambda: exhaust(load_batches(crops, sampler, workers, "cpu"))

    def reading(source: EncodedImages, order: Iterable[int]) -> Callable[[], None]:
        return lambda: exhaust(source.get(index) for index in order)

    cpu, of = torch.device("cpu"), f"{images} of {laid_out} images"
    return [
        compare(
            f"layouts: loading {of} in random order, --workers {workers}, ms an image",
            {name: loading(source) for name, source in sources.items()},
            cpu,
            turns,
            units=images,
        ),
        compare(
            f"layouts: reading {of} in random order, one thread, without decoding, ms an image",
            {name: reading(source, at_random) for name, source in sources.items()},
            cpu,
            turns,
            units=images,
        ),
        compare(
            f"layouts: reading {of} as they lie, one thread, without decoding, ms an image",
            {name: reading(source, range(images)) for name, source in sources.items()},
            cpu,
            turns,
            units=images,
        ),
    ]


@contextmanager
def cache_in(folder: Path) -> Iterator[Path]:
    """Meanwhile, indices go to this folder: those of a benchmark are of no use to anybody later."""
    before = os.environ.get("EVOMASK_CACHE")
    os.environ["EVOMASK_CACHE"] = str(folder)
    try:
        yield folder
    finally:
        if before is None:
            del os.environ["EVOMASK_CACHE"]
        else:
            os.environ["EVOMASK_CACHE"] = before


def exhaust(iterable: Iterable[object]) -> None:
    """Take all that it gives, and keep none."""
    for _ in iterable:
        pass
