"""Images and their masks as segmentation is trained on them: scaled, cropped, flipped and distorted at random."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from evomask.data.image_masks import IGNORED, ClassMaskSource
from evomask.data.readable import ReadableImages
from evomask.data.sampler import Key, sample_seed

CROP_ATTEMPTS = 10
"""At a crop in which no class has too much of the pixels; the last one is taken as it is."""


class SegmentationCrops(Dataset[tuple[Tensor, Tensor, int]]):
    """`dataset[epoch, index] -> (image_uint8 (C, H, W), mask (H, W) int16, index)`, a function of (seed, epoch, index) alone.

    As the benchmark of mmsegmentation trains. The index that comes back is that of the image that was used, see
    `ReadableImages`.

    Args:
        source: images with masks.
        size: height and width of a crop.
        sides: the shorter and the longer side that images are scaled to fit into, see `fitting_size`.
        seed: of all draws.
        scale: range of the factor on these.
        largest_share: of the pixels of a crop that have a label, one class should have at most this much.
        fill: of each channel, for what lies outside an image that is smaller than a crop; its mask is ignored there.
        distort: whether brightness, contrast, saturation and hue are distorted; of 3 channels only.
    """

    def __init__(
        self,
        source: ClassMaskSource,
        size: tuple[int, int],
        sides: tuple[int, int],
        seed: int,
        scale: tuple[float, float] = (0.5, 2.0),
        largest_share: float = 0.75,
        fill: Sequence[int] = (124, 116, 104),
        distort: bool = True,
    ):
        if distort and len(fill) != 3:
            raise ValueError(f"colours are distorted in images of 3 channels, not of {len(fill)}: leave that out")
        self.source: Any = source
        self._size, self._sides, self._seed, self._scale = size, sides, seed, scale
        self._largest_share, self._fill = largest_share, torch.tensor(fill, dtype=torch.uint8).view(-1, 1, 1)
        self._images = ReadableImages(self.source, len(fill), size, seed)
        self._distort = PhotometricDistortion() if distort else None

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, int]:
        """One image of one epoch."""
        epoch, index = key
        image, used = self._images.get(epoch, index)
        mask = torch.full(image.shape[-2:], IGNORED) if used < 0 else self.source.mask_of(used, image)
        torch.default_generator.manual_seed(sample_seed(self._seed, epoch, index))
        low, high = self._scale
        image, mask = scaled(image, mask, fitting_size(image, self._sides, low + (high - low) * float(torch.rand(()))))
        image, mask = self._filled_up(image, mask)
        image, mask = self._crop(image, mask)
        if torch.rand(()) < 0.5:
            image, mask = image.flip(-1), mask.flip(-1)
        if self._distort is not None:
            image = self._distort(image)
        return image.contiguous(), mask.to(torch.int16).contiguous(), used

    def _filled_up(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """On the right and below, to the size of a crop."""
        height, width = (max(side, least) for side, least in zip(mask.shape, self._size, strict=True))
        if mask.shape == (height, width):
            return image, mask
        canvas = self._fill.expand(-1, height, width).clone()
        canvas[:, : mask.shape[0], : mask.shape[1]] = image
        labels = mask.new_full((height, width), IGNORED)
        labels[: mask.shape[0], : mask.shape[1]] = mask
        return canvas, labels

    def _crop(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        height, width = self._size
        for _ in range(CROP_ATTEMPTS):
            top, left = (int(torch.randint(1 + side - part, ())) for side, part in zip(mask.shape, self._size, strict=True))
            part = mask[top : top + height, left : left + width]
            count = part[part != IGNORED].bincount()
            if (count > 0).sum() > 1 and count.max() < self._largest_share * count.sum():
                break
        return image[:, top : top + height, left : left + width], part


def fitting_size(image: Tensor, sides: tuple[int, int], factor: float = 1.0) -> tuple[int, int]:
    """Height and width of an image (..., H, W) scaled until one of its sides is as long as it may be; its shape is kept.

    Args:
        image: or a mask.
        sides: how long the shorter, and the longer side may be, in pixels.
        factor: on both.
    """
    height, width = image.shape[-2:]
    shorter, longer = (side * factor for side in sorted(sides))
    scale = min(shorter / min(height, width), longer / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def scaled(image: Tensor, mask: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Image (C, H, W) by bilinear interpolation, mask (H, W) by the nearest pixel."""
    image = functional.resize(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    mask = functional.resize(mask.unsqueeze(0), list(size), interpolation=v2.InterpolationMode.NEAREST_EXACT)[0]
    return image, mask


class PhotometricDistortion(v2.RandomPhotometricDistort):
    """Brightness, contrast, saturation and hue (Liu et al., 2016), without the channels' changing places."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """As torchvision draws them, but for the order of channels."""
        return super().make_params(flat_inputs) | {"channel_permutation": None}
