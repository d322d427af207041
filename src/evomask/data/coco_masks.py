"""Images with COCO's instance annotations, as a label for each pixel: which object it shows."""

from pathlib import Path

import torch
from torch import Tensor

from evomask.data.coco import CocoImages
from evomask.data.decode import UnreadableImage
from evomask.data.image_masks import IGNORED
from evomask.data.rle import pycocotools_mask


class CocoMasks:
    """The images of a folder that have annotated objects, with 0 for the background and 1, 2, ... for the objects.

    Where objects overlap, the smaller one is seen. Crowds, which are no single object, are IGNORED.

    Args:
        images: the folder of images.
        annotations: a file such as instances_val2017.json.
        channels: of an image.

    Raises:
        ValueError: pycocotools is not installed, or what `CocoImages` raises.
    """

    def __init__(self, images: Path, annotations: Path, channels: int = 3):
        self._source = CocoImages(annotations, images, channels, skip_empty=True)
        pycocotools_mask()  # so that a missing library is said at once

    def __len__(self) -> int:
        """The number of images."""
        return len(self._source)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size.

        Raises:
            ValueError: it cannot be read, or is of another size than its annotations are for.
        """
        try:
            return self._source.image(index)
        except UnreadableImage as error:
            raise ValueError(f"{self._source.name(index)} cannot be read: {error}") from error

    def mask(self, index: int) -> Tensor:
        """(H, W) long."""
        shapes, crowds = self._source.outlines(index)
        labels = torch.zeros(shapes.shape[1:], dtype=torch.long)
        for number in shapes.flatten(1).sum(dim=1).argsort(descending=True, stable=True).tolist():
            labels[shapes[number]] = IGNORED if crowds[number] else number + 1
        return labels
