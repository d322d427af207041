"""The same images in every layout, written without evomask, by the libraries that others write them with."""

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Sample = tuple[str, bytes, int]
"""(path, encoded image, label)."""

CLASSES = ["cat", "dog", "eel"]


def encoded(seed: int, kind: str = "JPEG") -> bytes:
    """An image of noise, each of another size."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (8 + seed % 5, 9 + seed % 7, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def samples() -> list[Sample]:
    """23 images of three classes, in the order of their paths."""
    return [(f"{CLASSES[n // 8]}/{n:04d}.jpg", encoded(n), n // 8) for n in range(23)]


@pytest.fixture
def write_folder() -> Callable[..., Path]:
    def write(samples: Sequence[Sample], folder: Path) -> Path:
        for path, data, _ in samples:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return folder

    return write


@pytest.fixture
def write_parquet() -> Callable[..., Path]:
    """As `datasets` writes them: features in the metadata of the schema, rows in small groups."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(
        samples: Sequence[Sample], folder: Path, a_shard: int = 10, row_group: int = 4, names: list[str] | None = CLASSES
    ) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else None
        image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        schema = pa.schema([("image", image), ("label", pa.int64())], metadata)
        shards = [samples[first : first + a_shard] for first in range(0, len(samples), a_shard)]
        for number, shard in enumerate(shards):
            rows = [{"image": {"bytes": data, "path": path}, "label": label} for path, data, label in shard]
            path = folder / f"train-{number:05}-of-{len(shards):05}.parquet"
            parquet.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=row_group)
        return folder

    return write


@pytest.fixture
def write_tar() -> Callable[..., Path]:
    """By the library `webdataset`."""
    webdataset = pytest.importorskip("webdataset")

    def write(samples: Sequence[Sample], folder: Path, a_shard: int = 10) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for first in range(0, len(samples), a_shard):
            with webdataset.TarWriter(str(folder / f"train-{first // a_shard:06}.tar")) as writer:
                for number, (_, data, label) in enumerate(samples[first : first + a_shard], first):
                    writer.write({"__key__": f"{number:08}", "jpg": data, "cls": label})
        return folder

    return write
