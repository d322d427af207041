"""Parquet shards in the layout in which the Hugging Face hub holds image data sets, ImageNet-1K for one."""

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from evomask.data.decode import UnreadableImage
from evomask.data.images import EncodedImages
from evomask.data.index import LARGEST_LABEL, Index, load_index, stamp
from evomask.data.shards import class_names

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ROW_GROUPS = 2
"""That a process keeps, so that reading in order reads each once."""

OPEN_SHARDS = 32
"""That a process keeps open."""


class ParquetShards(EncodedImages):
    """Images in parquet files, in the order of the files and of their rows.

    A row is an image: `image` is a struct with `bytes`, `label`, where there is one, a number. The names of the classes are
    those of the features that `datasets` keeps with a file.

    Parquet is read by whole row groups, and published ones hold 100 images or more. Reading in order costs little; reading at
    random costs a row group, some 10 MB, for each image. `docs/data.md` says what that is in time, and how to turn the shards
    into tar files.

    Args:
        files: absolute paths of the shards.
        root: what they are called together.

    Raises:
        ValueError: pyarrow is not installed; a file that is no parquet file, or has no such columns; no image at all.
    """

    def __init__(self, files: Sequence[str], root: str):
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ValueError("parquet files are read by pyarrow: pip install 'evomask[parquet]'") from error
        self._files, self._root = files, root
        index = load_index("parquet", root, self._build, files)
        super().__init__(index, class_names(index.arrays["labels"], index.facts["names"], files[0]))

    def read(self, index: int) -> bytes:
        """The bytes of a row.

        Raises:
            UnreadableImage: the shard is gone or damaged, or the row has no bytes.
        """
        import pyarrow as pa

        group, row = self._place(index)
        path, changed_ns, _ = self.index.stamps[int(self.index.arrays["shards"][group])]
        try:
            value = _row_group(path, changed_ns, int(self.index.arrays["groups"][group]))[row].as_py()
        except (OSError, pa.ArrowException) as error:
            raise UnreadableImage(str(error)) from error
        if value is None:
            raise UnreadableImage("the row has no bytes")
        return value

    def name(self, index: int) -> str:
        """`shard.parquet:row`, counted from 0."""
        group, _ = self._place(index)
        shards = self.index.arrays["shards"]
        first_group = int(np.searchsorted(shards, shards[group]))
        return f"{self.index.stamps[int(shards[group])][0]}:{index - self._first_row(first_group)}"

    def _place(self, index: int) -> tuple[int, int]:
        """(row group, counted over all files; row in it)."""
        group = int(np.searchsorted(self.index.arrays["ends"], index, side="right"))
        return group, index - self._first_row(group)

    def _first_row(self, group: int) -> int:
        return int(self.index.arrays["ends"][group - 1]) if group else 0

    def _build(self) -> Index:
        import pyarrow as pa

        stamps = [stamp(path) for path in self._files]
        labels, shards, groups, rows = [], [], [], []
        names = None
        for shard, path in enumerate(self._files):
            try:
                file = _open(path, stamps[shard][1])
                labels.append(_labels(file))
            except (OSError, pa.ArrowException) as error:
                raise ValueError(f"{path} cannot be read as parquet: {error}") from error
            except LookupError as error:
                raise ValueError(f"{path} is not laid out as images are on the hub: {error.args[0]}") from error
            names = names or _class_names(file.schema_arrow)
            for group in range(file.num_row_groups):
                shards.append(shard)
                groups.append(group)
                rows.append(file.metadata.row_group(group).num_rows)
        arrays = {
            "labels": np.concatenate(labels),
            "shards": np.array(shards, np.int32),
            "groups": np.array(groups, np.int32),
            "ends": np.cumsum(rows, dtype=np.int64),
        }
        if not len(arrays["labels"]):
            raise ValueError(f"there are no images in {self._root}: its parquet files have no rows")
        return Index(arrays, {"names": names}, stamps)


@lru_cache(OPEN_SHARDS)
def _open(path: str, changed_ns: int) -> "pq.ParquetFile":
    """A shard. After a change it is another file, of which there is another index."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, memory_map=True, pre_buffer=False)


@lru_cache(ROW_GROUPS)
def _row_group(path: str, changed_ns: int, group: int) -> "pa.ChunkedArray":
    """The bytes of the images of a row group. No other column is read, and no thread is started in a forked process."""
    table = _open(path, changed_ns).read_row_group(group, columns=["image.bytes"], use_threads=False)
    return table.flatten().column("image.bytes")


def _labels(file: "pq.ParquetFile") -> "np.ndarray":
    """(n,) int32, -1 for none. Raises a LookupError that says which column is missing."""
    import pyarrow as pa

    schema = file.schema_arrow
    image = schema.field("image").type if "image" in schema.names else None
    if image is None or not pa.types.is_struct(image) or image.get_field_index("bytes") < 0:
        raise LookupError(f"it needs a column `image` with `bytes` and has {', '.join(map(str, schema))}")
    if "label" not in schema.names:
        return np.full(file.metadata.num_rows, -1, np.int32)
    label = schema.field("label").type
    if not pa.types.is_integer(label):
        raise LookupError(f"its labels are no numbers but {label}")
    labels = file.read(columns=["label"], use_threads=False).column("label").cast(pa.int64()).fill_null(-1).to_numpy()
    if len(labels) and not -1 <= labels.min() <= labels.max() <= LARGEST_LABEL:
        raise LookupError(f"its labels lie in {labels.min()} ... {labels.max()}, not in 0 ... {LARGEST_LABEL}, -1 for none")
    return labels.astype(np.int32)


def _class_names(schema: "pa.Schema") -> list[str] | None:
    """Those of `label`, a ClassLabel, in the features that `datasets` writes; None where there are none."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return metadata.get("info", {}).get("features", {}).get("label", {}).get("names")
