"""Tar shards as WebDataset writes them, read at random: an index says where in which file each image lies."""

import json
import os
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from evomask.data.decode import UnreadableImage
from evomask.data.images import SUFFIXES, EncodedImages
from evomask.data.index import LARGEST_LABEL, Index, load_index, pack_names, stamp
from evomask.data.shards import class_names

OPEN_SHARDS = 64
"""That a process keeps open."""


class TarShards(EncodedImages):
    """Images in uncompressed tar files, in the order of the files and within them.

    Members that follow each other, and whose paths are equal up to the first dot of the file's name, are a sample: `000123.jpg`
    is its image, `000123.cls`, a number, or `label` in `000123.json` its label. Of several images in a sample the first is
    taken; a sample without one is left out.

    Args:
        files: absolute paths of the shards.
        root: what they are called together.

    Raises:
        ValueError: a file that is no uncompressed tar file, or is cut short; a label that is no number; no image at all.
    """

    def __init__(self, files: Sequence[str], root: str):
        self._files, self._root = files, root
        index = load_index("tar", root, self._build, files)
        super().__init__(index, class_names(index.arrays["labels"], None, files[0]))

    def read(self, index: int) -> bytes:
        """The bytes of a member.

        Raises:
            UnreadableImage: the shard is gone, or shorter than it was.
        """
        offset, size = (int(self.index.arrays[name][index]) for name in ("offsets", "sizes"))
        path, changed_ns, _ = self._shard(index)
        try:
            data = os.pread(_open(path, changed_ns).descriptor, size, offset)
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        if len(data) < size:
            raise UnreadableImage("its shard has become shorter")
        return data

    def name(self, index: int) -> str:
        """`shard.tar:key`."""
        return f"{self._shard(index)[0]}:{self.index.name(index)}"

    def _shard(self, index: int) -> tuple[str, int, int]:
        return self.index.stamps[int(self.index.arrays["shards"][index])]

    def _build(self) -> Index:
        stamps = [stamp(path) for path in self._files]
        keys: list[str] = []
        columns = {"labels": array("i"), "shards": array("i"), "offsets": array("q"), "sizes": array("q")}
        for shard, path in enumerate(self._files):
            for sample in _samples(path):
                keys.append(sample.key)
                row = {"labels": sample.label, "shards": shard, "offsets": sample.image.offset_data, "sizes": sample.image.size}
                for name, value in row.items():
                    columns[name].append(value)
        if not keys:
            looked_for = " ".join(sorted(SUFFIXES))
            raise ValueError(f"there are no images in {self._root}: looked for members of tar files that end in {looked_for}")
        return Index(pack_names(keys) | {name: np.array(column) for name, column in columns.items()}, {}, stamps)


class _Sample(NamedTuple):
    key: str
    label: int
    image: tarfile.TarInfo


def _samples(path: str) -> Iterator[_Sample]:
    try:
        with tarfile.open(path, "r:") as tar:
            named = ((*_key_and_extension(member.name), member) for member in tar if member.isreg())
            for key, members in groupby((each for each in named if each[0]), itemgetter(0)):
                parts: dict[str, tarfile.TarInfo] = {}
                for _, extension, member in members:
                    parts.setdefault(extension, member)
                image = next((member for extension, member in parts.items() if f".{extension}" in SUFFIXES), None)
                if image is not None:
                    yield _Sample(key, _label(tar, parts, f"{path}:{key}"), image)
            _check_end(tar)
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no whole, uncompressed tar file: {error}; unpack it or fetch it again") from error


def _key_and_extension(name: str) -> tuple[str, str]:
    """("a/000123", "seg.png") of "a/000123.seg.png"; an empty key where there is no name before the first dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (folder + slash + stem if stem else ""), extension.lower()


def _label(tar: tarfile.TarFile, parts: dict[str, tarfile.TarInfo], name: str) -> int:
    """The sample's label, -1 for none."""
    extension = next((each for each in ("cls", "json") if each in parts), None)
    if extension is None:
        return -1
    file = tar.extractfile(parts[extension])
    assert file is not None  # it is a regular file
    text = file.read()
    try:
        label = int(text) if extension == "cls" else json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name}.{extension} holds no {'number' if extension == 'cls' else 'JSON'}: {text[:40]!r}") from error
    if extension == "json":
        label = label.get("label", -1) if isinstance(label, dict) else -1
    if not isinstance(label, int):
        raise ValueError(f"{name}.{extension} holds a label that is no number: {label!r}")
    if not -1 <= label <= LARGEST_LABEL:
        raise ValueError(f"{name}.{extension} holds the label {label}, not one in 0 ... {LARGEST_LABEL}, -1 for none")
    return label


def _check_end(tar: tarfile.TarFile) -> None:
    """`tarfile` takes a broken header for the end. The true end is a block of zeros, or that of the file."""
    assert tar.fileobj is not None
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"broken header at byte {tar.offset}")


class _Open:
    """A file that is closed when nobody has it any more."""

    def __init__(self, path: str):
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self):
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


@lru_cache(OPEN_SHARDS)
def _open(path: str, changed_ns: int) -> _Open:
    """A shard. After a change it is another file, of which there is another index."""
    return _Open(path)
