"""The index of a data set: what is known of each image before it is read, made once and shared by all processes.

An index is a safetensors file in the cache folder. It is memory-mapped: a process that loads images holds no list of them, only
pages of that file, the same ones as all others.

It says of which folders or files it was made, when they last changed, and their sizes. It is used where

- they are still the same. The time of a folder says whether an entry came, went or was renamed; that an image is overwritten in
  its place changes nothing that an index holds;
- they had been at rest for two seconds when it was made, since file systems count time in steps;
- it is of this version's format, and its checksum is right.

Otherwise it is made again, by one process while others wait for it, and takes the old one's place at once.
"""

import fcntl
import hashlib
import json
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

FORMAT = "1"
REST_NS = 2_000_000_000

LARGEST_LABEL = 2**31 - 1
"""An index keeps labels as int32."""

Stamp = tuple[str, int, int]
"""(path, nanoseconds of the last change, bytes)."""

logger = logging.getLogger("evomask")


@dataclass(frozen=True, eq=False)
class Index:
    """What is known of all images.

    Attributes:
        arrays: by name. `labels` is (n,) int32; names, where images have any, are packed by `pack_names`.
        facts: what does not grow with the number of images, such as `classes`, the names of the labels; as JSON has it.
        stamps: of the folders or files that it was made of.
        path: of the file that the arrays lie in; None where they lie in memory.
    """

    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]
    stamps: Sequence[Stamp]
    path: Path | None = None

    def name(self, index: int) -> str:
        """One of the packed names."""
        ends = self.arrays["name_ends"]
        return os.fsdecode(self.arrays["names"][ends[index - 1] if index else 0 : ends[index]].tobytes())

    def __reduce__(self):
        """Another process maps the file for itself, so that nothing is copied to it."""
        if self.path is None:
            return Index, (self.arrays, self.facts, self.stamps)
        return _map_again, (self.path, self.stamps)


def pack_names(names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The arrays of an index that hold a name for each image."""
    encoded = [os.fsencode(name) for name in names]
    ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
    return {"names": np.frombuffer(b"".join(encoded), np.uint8), "name_ends": ends}


def stamp(path: str) -> Stamp:
    """When a folder or file last changed; to be taken before it is read."""
    status = os.stat(path)
    return path, status.st_mtime_ns, status.st_size


def cache_folder() -> Path:
    """Where indices lie: `$EVOMASK_CACHE`, else `$XDG_CACHE_HOME/evomask`, else `~/.cache/evomask`."""
    if named := os.environ.get("EVOMASK_CACHE"):
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "evomask"


def load_index(kind: str, root: str, build: Callable[[], Index], files: Sequence[str] | None = None) -> Index:
    """The index of a data set: from the cache where it is there and still true, else made and put there.

    Args:
        kind: how the images are stored.
        root: real path of the data set, or the pattern that names its files; only one of this kind can be there.
        build: makes the index.
        files: which the data set consists of now. None: those that the index itself names have to be the same, and no more.
    """
    key = hashlib.sha256(os.fsencode(f"{kind}:{root}")).hexdigest()[:16]
    name = re.sub(r"[^\w.-]+", "-", os.path.basename(root))
    path = cache_folder() / f"{name}-{key}.safetensors"
    index = _usable(path, files, logging.DEBUG)
    if index is not None:
        return index
    with _one_at_a_time(path.with_suffix(".lock")):
        index = _usable(path, files, logging.WARNING)  # another process may have made it meanwhile
        if index is not None:
            return index
        began_ns = time.time_ns()
        with _said_if_it_takes_long(f"indexing {root}, which is done once"):
            index = build()
        return _save(index, path, began_ns)


def _usable(path: Path, files: Sequence[str] | None, level: int) -> Index | None:
    """The index in a file; None where there is none, or none that is still true. Damage is logged at this level."""
    try:
        index, began_ns = _map(path)
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, ValueError, LookupError) as error:
        logger.log(level, "the index %s cannot be used and is made again: %s", path, error)
        return None
    try:
        now = [stamp(name) for name in (files if files is not None else [name for name, *_ in index.stamps])]
    except OSError:
        return None
    at_rest = all(changed_ns < began_ns - REST_NS for _, changed_ns, _ in now)
    return index if at_rest and now == index.stamps else None


def _map(path: Path) -> tuple[Index, int]:
    """The index in a file, and when it was begun, in nanoseconds. Raises a ValueError where it is not as it was written."""
    with safe_open(path, "pt") as file:  # PyTorch's tensors are views of the mapped file; NumPy's would be copies
        header = file.metadata() or {}
        arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118  # it is no dictionary
    if header["format"] != FORMAT:
        raise ValueError("it is of another version of evomask")
    if _checksum(arrays, header["index"]) != header["checksum"]:
        raise ValueError("its checksum is wrong")
    for array in arrays.values():
        array.flags.writeable = False
    index = json.loads(header["index"])
    stamps = [(name, changed_ns, size) for name, changed_ns, size in index["stamps"]]
    return Index(arrays, index["facts"], stamps, path), index["began_ns"]


def _map_again(path: Path, stamps: Sequence[Stamp]) -> Index:
    index, _ = _map(path)
    if index.stamps != stamps:
        raise ValueError(f"the index {path} was made anew, since the images changed: begin again")
    return index


def _save(index: Index, path: Path, began_ns: int) -> Index:
    """The index, mapped. Where the cache cannot be written the index as it was: slower to begin with, but no less right."""
    text = json.dumps({"facts": index.facts, "stamps": index.stamps, "began_ns": began_ns})
    header = {"format": FORMAT, "index": text, "checksum": _checksum(index.arrays, text)}
    partial = path.with_suffix(f".{uuid4().hex}.tmp")  # a number of a process is not one of its own on many machines
    try:
        save_file(dict(index.arrays), partial, header)
        os.replace(partial, path)
        return _map(path)[0]
    except (SafetensorError, OSError) as error:
        logger.warning("the index cannot be kept in %s, and is made anew each time: %s", path.parent, error)
        with suppress(OSError):
            partial.unlink()
        return index


def _checksum(arrays: Mapping[str, NDArray[Any]], text: str) -> str:
    checksum = zlib.crc32(text.encode())
    for name in sorted(arrays):
        checksum = zlib.crc32(np.ascontiguousarray(arrays[name]).data, checksum)
    return f"{checksum:08x}"


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Wait for another process that makes the same index. There is none to wait for where the cache cannot be written."""
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError:
        yield
        return
    with file:
        with suppress(OSError):  # a file system without locks: each makes its own, and they are the same
            fcntl.lockf(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _said_if_it_takes_long(message: str) -> Iterator[None]:
    timer = threading.Timer(2, logger.info, (message,))
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
