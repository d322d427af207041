"""A few of many, from all over a source: to be drawn, or to measure something on."""

import torch
from torch import Tensor

from evomask.data.decode import UnreadableImage
from evomask.data.images import ImageSource
from evomask.data.labelled import fit


def spread(count: int, total: int) -> list[int]:
    """At most `count` of the numbers below `total`, ascending, as far apart as they can be, the first of them 0."""
    count = min(count, total)
    return [number * total // count for number in range(count)]


def spread_images(source: ImageSource, size: tuple[int, int], channels: int, count: int) -> tuple[Tensor, list[int]]:
    """The first readable image of each of `count` equal parts of a source; of a source in order of classes, some of each.

    Args:
        source: any images.
        size: height and width to scale and cut them to, see `fit`.
        channels: of an image.
        count: how many parts; a part of which no image can be read, or that is empty, is left out.

    Returns:
        (n, C, H, W) uint8, and their n numbers in the source, ascending.
    """
    images, indices = [torch.empty(0, channels, *size, dtype=torch.uint8)], []
    for part in range(count):
        for index in range(part * len(source) // count, (part + 1) * len(source) // count):
            try:
                image = source.image(index)
            except UnreadableImage:
                continue
            images.append(fit(image, size).unsqueeze(0))
            indices.append(index)
            break
    return torch.cat(images), indices
