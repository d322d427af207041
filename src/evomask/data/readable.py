"""Images for training, where a broken file must not end a run: it is named, and another image takes its place."""

import logging

import torch
from torch import Tensor

from evomask.data.decode import UnreadableImage
from evomask.data.images import ImageSource
from evomask.data.sampler import sample_seed

logger = logging.getLogger("evomask")

REPLACEMENTS = 10


class ReadableImages:
    """`images.get(epoch, index) -> (image, index of the image that it is)`, a function of (seed, epoch, index) alone.

    A file that cannot be read is named in the log, once, and replaced by another one, always the same.

    Args:
        source: the images.
        channels: of an image.
        size: height and width of what is given where no file can be read.
        seed: of the replacements.
    """

    def __init__(self, source: ImageSource, channels: int, size: tuple[int, int], seed: int):
        self._source, self._channels, self._size, self._seed = source, channels, size, seed
        self._complained: set[int] = set()

    def get(self, epoch: int, index: int) -> tuple[Tensor, int]:
        """(C, H, W) uint8 and its index, -1 where none was found."""
        for attempt in range(1, REPLACEMENTS + 1):
            try:
                return self._source.image(index), index
            except UnreadableImage as error:
                if index not in self._complained:
                    self._complained.add(index)
                    logger.warning("%s cannot be read and is replaced by another image: %s", self._source.name(index), error)
                index = sample_seed(self._seed, epoch, index, attempt) % len(self._source)
        # So many in a row: far too many files are broken, and whoever counts them is about to stop the run.
        return torch.zeros(self._channels, *self._size, dtype=torch.uint8), -1
