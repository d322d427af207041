"""What a source of images is: decoded, as training takes it, and encoded, as images lie on a disk."""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from evomask.data.decode import UnreadableImage, check_channels, decode
from evomask.data.index import Index

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


class ImageSource(Protocol):
    """Images by number. The numbers and their order never change while a source lives."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes, by label; empty where images have no labels."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size."""
        ...

    def label(self, index: int) -> int | None:
        """The class's number, None where images have no labels."""
        ...

    def name(self, index: int) -> str:
        """What to call it in a log: the path of a file."""
        ...


class EncodedImages(ABC):
    """Images by number, in the bytes in which they are stored. One file of this folder holds each way to store them.

    Whatever grows with the number of images lies in the index, so that it costs a process that loads images nothing.

    Args:
        index: with `labels`, (n,) int32, and what the way of storing needs.
        classes: the names of the labels; empty where images have none.
    """

    def __init__(self, index: Index, classes: list[str]):
        self.index, self.classes = index, classes

    def __len__(self) -> int:
        """The number of images."""
        return len(self.index.arrays["labels"])

    def get(self, index: int) -> tuple[bytes, int | None]:
        """The image's bytes and its label.

        Raises:
            UnreadableImage: they cannot be read.
        """
        return self.read(index), self.label(index)

    def label(self, index: int) -> int | None:
        """The number of the image's class, None where there are no classes."""
        return int(self.index.arrays["labels"][index]) if self.classes else None

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The image's bytes.

        Raises:
            UnreadableImage: they cannot be read.
        """

    @abstractmethod
    def name(self, index: int) -> str:
        """What to call it in a log."""


def read_file(path: str) -> bytes:
    """The bytes of a file.

    Raises:
        UnreadableImage: it is gone, or may not be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise UnreadableImage(error.strerror or str(error)) from error


class DecodedImages:
    """Encoded images, decoded; an `ImageSource`.

    Args:
        encoded: the images.
        channels: 1 grey, 3 RGB, 4 RGBA.
    """

    def __init__(self, encoded: EncodedImages, channels: int = 3):
        check_channels(channels)
        self.classes = encoded.classes
        self._encoded, self._channels = encoded, channels

    def __len__(self) -> int:
        """The number of images."""
        return len(self._encoded)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size.

        Raises:
            UnreadableImage: the image is broken, or gone.
        """
        return decode(self._encoded.read(index), self._channels)

    def label(self, index: int) -> int | None:
        """The number of the image's class, None where there are no classes."""
        return self._encoded.label(index)

    def name(self, index: int) -> str:
        """The file's path, or the shard's and the place in it."""
        return self._encoded.name(index)


class Chosen:
    """Some images of a source, in a given order; an `ImageSource`."""

    def __init__(self, source: ImageSource, indices: ArrayLike):
        self.classes = source.classes
        # A list of numbers would be copied to each process that loads images.
        self._source, self._indices = source, np.asarray(indices, np.int64)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._indices)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size."""
        return self._source.image(int(self._indices[index]))

    def label(self, index: int) -> int | None:
        """The class's number."""
        return self._source.label(int(self._indices[index]))

    def name(self, index: int) -> str:
        """What to call it in a log."""
        return self._source.name(int(self._indices[index]))
