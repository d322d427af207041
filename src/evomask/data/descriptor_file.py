"""Descriptors on a disk, as a `.npy` file that is written and read a few rows at a time, however many there are.

It is not memory-mapped: pages of a mapped file count as memory of the process that has read them.
"""

import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Precision = Literal["float32", "float16"]


class DescriptorWriter:
    """A file of `count` descriptors of `width` numbers, to be filled in any order of rows.

    Args:
        path: of the .npy file; one that is there is overwritten.
        count: rows.
        width: numbers of a row.
        precision: of a number.
    """

    def __init__(self, path: Path, count: int, width: int, precision: Precision = "float32"):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._type = path, np.dtype(precision)
        self._row_bytes = width * self._type.itemsize
        header = {"descr": np.lib.format.dtype_to_descr(self._type), "fortran_order": False, "shape": (count, width)}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            self._start = file.tell()
            file.truncate(self._start + count * self._row_bytes)

    def write(self, first: int, rows: Tensor) -> None:
        """Rows (n, width) float32, the first of which is number `first`."""
        with self._path.open("r+b") as file:
            file.seek(self._start + first * self._row_bytes)
            file.write(np.ascontiguousarray(rows.numpy(), dtype=self._type).data)


class DescriptorFile:
    """Rows of a `.npy` file, read when they are asked for.

    Args:
        path: of the file.

    Raises:
        ValueError: no such file, or it holds anything but a matrix of float16 or float32.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        self._path = path
        with path.open("rb") as file:
            try:
                np.lib.format.read_magic(file)
                shape, transposed, self._type = np.lib.format.read_array_header_1_0(file)
                self._start = file.tell()
            except ValueError as error:
                raise ValueError(f"{path} is no .npy file, or not one of NumPy's format 1.0") from error
        if len(shape) != 2 or transposed or self._type not in (np.dtype("float16"), np.dtype("float32")):
            raise ValueError(f"{path} must hold a matrix of float16 or float32, a row for each image, not {self._type} {shape}")
        self.count, self.width = shape
        if os.path.getsize(path) < self._start + self.count * self.width * self._type.itemsize:
            raise ValueError(f"{path} is cut short")

    def __len__(self) -> int:
        """Rows."""
        return self.count

    def rows(self, first: int, end: int) -> Tensor:
        """(end - first, width) float32, fewer at the end of the file."""
        count = max(0, min(end, self.count) - first)
        with self._path.open("rb") as file:
            file.seek(self._start + first * self.width * self._type.itemsize)
            numbers = np.fromfile(file, self._type, count * self.width)
        return torch.from_numpy(numbers.reshape(count, self.width)).float()
