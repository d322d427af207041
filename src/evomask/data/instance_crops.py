"""Images with objects as a detector sees them: scaled, cropped and mirrored at random in training, whole in validation."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2 import functional

from evomask.data.decode import UnreadableImage
from evomask.data.images import ImageSource
from evomask.data.instances import Instances, InstanceSource
from evomask.data.readable import ReadableImages
from evomask.data.sampler import Key, sample_seed

Sample = tuple[Tensor, dict[str, Tensor], int]


class InstanceCrops(Dataset[Sample]):
    """`dataset[epoch, index] -> (image_uint8 (C, h, w), objects, index)`, a function of (seed, epoch, index) alone.

    The image is scaled until its longer side is `size` times a random factor, and where it is then larger than `size` x `size`
    a window of at most that is cut out at random (large-scale jitter: Ghiasi et al., 2021); h and w are at most `size`.
    `objects` are `boxes` (K, 4) float, left, top, right, bottom, `labels` (K,) long from 1 and `masks` (K, h, w) uint8, as
    torchvision's detectors take them; of an object that is cut, the box is that of what is left. The index that comes back is
    that of the image that was used, see `ReadableImages`.

    Args:
        source: images with objects.
        size: of a side in pixels.
        channels: of an image.
        seed: of all draws.
        scale: range of the factor; (1, 1) only scales the image to the size.
        flip: whether images are mirrored at random.
    """

    def __init__(
        self, source: InstanceSource, size: int, channels: int, seed: int, scale: tuple[float, float], flip: bool = True
    ):
        self.source: ImageSource = source
        self._instances = source.instances
        self._size, self._seed, self._scale, self._flip = size, seed, scale, flip
        self._images = ReadableImages(source, channels, (size, size), seed)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, key: Key) -> Sample:
        """One image of one epoch."""
        epoch, index = key
        image, used = self._images.get(epoch, index)
        found = self._instances(used) if used >= 0 else Instances.none((self._size, self._size))
        torch.default_generator.manual_seed(sample_seed(self._seed, epoch, index))
        image, found = self._jitter(image, found)
        if self._flip and torch.rand(()) < 0.5:
            left, top, right, bottom = found.boxes.unbind(1)
            width = image.shape[-1]
            boxes = torch.stack((width - right, top, width - left, bottom), dim=1)
            image, found = image.flip(-1), Instances(boxes, found.labels, found.masks.flip(-1))
        seen = found.masks.flatten(1).any(dim=1)  # the smallest have no pixel left
        objects = {"boxes": found.boxes[seen], "labels": found.labels[seen], "masks": found.masks[seen].to(torch.uint8)}
        return image, objects, used

    def _jitter(self, image: Tensor, found: Instances) -> tuple[Tensor, Instances]:
        height, width = image.shape[-2:]
        low, high = self._scale
        scale = self._size / max(height, width) * (low + (high - low) * torch.rand(()).item())
        rows, columns = (min(self._size, max(1, round(side * scale))) for side in (height, width))
        # The window is cut out before it is scaled: the same pixels, and much less to do.
        high, wide = (min(side, max(1, round(part / scale))) for side, part in ((height, rows), (width, columns)))
        top, left = (int(torch.randint(side - part + 1, ())) for side, part in ((height, high), (width, wide)))
        image = functional.resized_crop(image, top, left, high, wide, [rows, columns], antialias=True)
        nearest = functional.InterpolationMode.NEAREST_EXACT  # NEAREST would shift masks by up to half a pixel
        masks = functional.resized_crop(found.masks, top, left, high, wide, [rows, columns], interpolation=nearest)
        if (high, wide) != (height, width):
            return image, Instances(boxes_of(masks), found.labels, masks)
        return image, Instances(found.boxes * torch.tensor([columns / width, rows / height] * 2), found.labels, masks)


class WholeInstanceImages(Dataset[tuple[Tensor, tuple[int, int]]]):
    """`dataset[index] -> (image_uint8 (C, h, w), (height, width))`: scaled so that its longer side is `size`; its own size.

    Args:
        source: images.
        size: of the longer side in pixels.
    """

    def __init__(self, source: InstanceSource, size: int):
        self._source, self._size = source, size

    def __len__(self) -> int:
        """The number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[int, int]]:
        """Raises a ValueError that names the image, where it cannot be read."""
        try:
            image = self._source.image(index)
        except UnreadableImage as error:
            raise ValueError(f"{self._source.name(index)} cannot be used: {error}") from error
        height, width = image.shape[-2:]
        scale = self._size / max(height, width)
        return functional.resize(image, [max(1, round(side * scale)) for side in (height, width)]), (height, width)


def boxes_of(masks: Tensor) -> Tensor:
    """(K, H, W) bool -> (K, 4) float: left, top, right, bottom of what is set, the latter two exclusive; 0 where nothing is."""
    boxes = []
    for axis in (1, 2):  # over rows, which leaves columns; over columns
        along = masks.any(dim=axis)
        places = torch.arange(along.shape[1])
        first = torch.where(along, places, along.shape[1]).amin(dim=1)
        last = torch.where(along, places, -1).amax(dim=1)
        boxes.append((torch.where(last < 0, 0, first), last + 1))
    (left, right), (top, bottom) = boxes
    return torch.stack((left, top, right, bottom), dim=1).float()


def collate(samples: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """Samples of several sizes, side by side: a list of each thing but the last, which are indices, a tensor."""
    *parts, indices = zip(*samples, strict=True)
    return *(list(part) for part in parts), torch.tensor(indices)
