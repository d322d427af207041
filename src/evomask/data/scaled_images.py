"""Whole images at several scales, in shapes that an encoder's patches divide: as they are described to be searched."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from evomask.data.decode import UnreadableImage
from evomask.data.images import ImageSource
from evomask.data.revisited import Box


class ScaledImages(Dataset[list[Tensor]]):
    """`dataset[index]` is an image at each scale, (C, h, w) uint8, its height over its width nearly kept.

    Args:
        source: the images.
        boxes: the part of each that is taken, in pixels; None: all. It is scaled as the whole image is, so that what is cut out
            is neither enlarged nor made smaller.
        long_side: of the whole image at scale 1, in pixels.
        scales: factors to it.
        unit: what height and width are rounded to multiples of.

    Raises:
        ValueError: a length or scale that is not above 0.
    """

    def __init__(
        self,
        source: ImageSource,
        boxes: Sequence[Box] | None,
        long_side: int,
        scales: Sequence[float],
        unit: tuple[int, int],
    ):
        if long_side < 1 or not scales or min(scales) <= 0:
            raise ValueError(f"the long side of images and their scales must be above 0, not {long_side} and {tuple(scales)}")
        self._source, self._boxes = source, boxes
        self._long_sides, self._unit = [long_side * scale for scale in scales], unit

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> list[Tensor]:
        """Raises a ValueError that names the image, where it cannot be read or its box lies outside."""
        image, long_side = self.original(index)
        made = []
        for wanted in self._long_sides:
            sides = [_rounded(side * wanted / long_side, unit) for side, unit in zip(image.shape[-2:], self._unit, strict=True)]
            bicubic = functional.InterpolationMode.BICUBIC
            made.append(functional.resize(image, sides, interpolation=bicubic, antialias=True))
        return made

    def original(self, index: int) -> tuple[Tensor, int]:
        """The image in its own size, or what is in its box; and the long side of the whole image."""
        try:
            image = self._source.image(index)
        except UnreadableImage as error:
            raise ValueError(f"{self._source.name(index)} cannot be read: {error}") from error
        height, width = image.shape[-2:]
        if self._boxes is not None:
            left, top, right, bottom = map(round, self._boxes[index])
            image = image[:, max(0, top) : max(0, bottom), max(0, left) : max(0, right)]
            if not image.numel():
                box = f"{left}, {top} to {right}, {bottom}"
                raise ValueError(f"the box of {self._source.name(index)}, {box}, lies outside its {width} x {height} px")
        return image, max(height, width)


def _rounded(length: float, unit: int) -> int:
    return max(1, round(length / unit)) * unit


def thumbnail(image: Tensor, side: int) -> Tensor:
    """(C, h, w) uint8 -> (C, side, side): the whole image, on white where it is no square."""
    height, width = (_rounded(length * side / max(image.shape[-2:]), 1) for length in image.shape[-2:])
    image = functional.resize(image, [height, width], interpolation=functional.InterpolationMode.BICUBIC, antialias=True)
    top, left = (side - height) // 2, (side - width) // 2
    return functional.pad(image, [left, top, side - width - left, side - height - top], fill=255)
