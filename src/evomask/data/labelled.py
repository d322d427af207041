"""Labelled images as evaluation wants them: whole, in one size, without randomness."""

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from evomask.data.decode import UnreadableImage
from evomask.data.images import ImageSource

ADVICE = "put those of each class in a folder, or labels into the shards"
"""Where labels are missing."""


class LabelledImages(Dataset[tuple[Tensor, int]]):
    """`dataset[index] -> (image_uint8 (C, H, W), label)`: the shorter side resized to fit, then the centre.

    Args:
        source: images with labels.
        size: height and width.
        shown: how much of the side that fits is seen, in (0, 1]. Usual are 224 of 256 pixels, 0.875.

    Raises:
        ValueError: the images have no labels.
    """

    def __init__(self, source: ImageSource, size: tuple[int, int], shown: float = 1.0):
        if not source.classes:
            raise ValueError(f"{source.name(0)} and the other images have no labels: {ADVICE}")
        self._source = source
        self._size, self._shown = size, shown

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Raises a ValueError that names the image, where it cannot be read."""
        label = self._source.label(index)
        assert label is not None
        try:
            return fit(self._source.image(index), self._size, self._shown), label
        except UnreadableImage as error:
            raise ValueError(f"{self._source.name(index)} cannot be read: {error}") from error


def fit(image: Tensor, size: tuple[int, int], shown: float = 1.0, sharp: bool = False) -> Tensor:
    """(C, h, w) uint8 -> (C, H, W) uint8: scaled until `shown` of it just covers the size, then cut around its centre.

    Args:
        image: or a map of labels, whose numbers must not be mixed: see `sharp`.
        size: height and width.
        shown: share of the side that fits.
        sharp: take the nearest pixel instead of interpolating, and keep the type.
    """
    (height, width), (rows, columns) = image.shape[-2:], size
    scale = max(rows / height, columns / width) / shown
    resized = [max(rows, round(height * scale)), max(columns, round(width * scale))]
    if sharp:
        image = functional.resize(image, resized, interpolation=functional.InterpolationMode.NEAREST_EXACT)
        return functional.center_crop(image, [rows, columns])
    image = functional.resize(image, resized, interpolation=functional.InterpolationMode.BICUBIC, antialias=True)
    return functional.center_crop(image, [rows, columns]).to(torch.uint8)
