"""Labelled images as a classifier is trained on them: cropped, flipped and distorted at random; and parts of a data set."""

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from timm.data.auto_augment import rand_augment_transform
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from evomask.data.images import Chosen, ImageSource
from evomask.data.labelled import ADVICE
from evomask.data.random_crop import random_crop
from evomask.data.readable import ReadableImages
from evomask.data.sampler import Key, sample_seed


class LabelledCrops(Dataset[tuple[Tensor, int, int]]):
    """`dataset[epoch, index] -> (image_uint8 (C, H, W), label, index)`, a function of (seed, epoch, index) alone.

    The index that comes back is that of the image that was used, see `ReadableImages`.

    Args:
        source: images with labels.
        size: height and width of a crop.
        channels: of an image.
        seed: of all draws.
        scale: range of the share of the image's area that a crop takes.
        distortion: RandAugment as timm writes it, for example "rand-m9-mstd0.5-inc1"; None for none. It needs 3 channels.

    Raises:
        ValueError: the images have no labels, the scale is no range of shares, or RandAugment cannot be applied to them.
    """

    def __init__(
        self,
        source: ImageSource,
        size: tuple[int, int],
        channels: int,
        seed: int,
        scale: tuple[float, float] = (0.08, 1.0),
        distortion: str | None = None,
    ):
        if not source.classes:
            raise ValueError(f"{source.name(0)} and the other images have no labels: {ADVICE}")
        if distortion is not None and channels != 3:
            raise ValueError(
                f"RandAugment distorts images of 3 channels, not of {channels}: leave it out with --distortion None"
            )
        self.source = source
        self._seed = seed
        self._images = ReadableImages(source, channels, size, seed)
        self._crop_and_flip = v2.Compose([random_crop(size, scale), v2.RandomHorizontalFlip()])
        self._distort = None if distortion is None else rand_augment(distortion, size)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        """One image of one epoch."""
        epoch, index = key
        image, used = self._images.get(epoch, index)
        label = self.source.label(max(used, 0))
        assert label is not None
        seed = sample_seed(self._seed, epoch, index)
        torch.default_generator.manual_seed(seed)
        image = self._crop_and_flip(image)
        if self._distort is not None:
            random.seed(seed)  # timm draws from Python's and from numpy's generator
            np.random.seed(seed % 2**32)
            image = functional.pil_to_tensor(self._distort(functional.to_pil_image(image)))
        return image, label, used


def rand_augment(name: str, size: tuple[int, int]):
    """timm's RandAugment with the settings of its own training transform.

    Raises:
        ValueError: timm does not understand the name.
    """
    # ImageNet's mean, bicubic
    settings = {"translate_const": int(min(size) * 0.45), "img_mean": (124, 116, 104), "interpolation": 3}
    try:
        augment = rand_augment_transform(name, settings)
    except (AssertionError, ValueError, KeyError) as error:
        raise ValueError(f"{name!r} is no RandAugment that timm knows: for example rand-m9-mstd0.5-inc1") from error
    for operation in augment.ops:
        if operation.name.startswith("Posterize"):
            operation.level_fn = partial(_at_least_one_bit, operation.level_fn)
    return augment


def _at_least_one_bit(level_fn: Callable[..., tuple[int]], level: float, settings: dict[str, Any]) -> tuple[int]:
    """At the highest magnitude timm keeps no bit of a pixel, which Pillow refuses from version 13 on."""
    return (max(1, *level_fn(level, settings)),)


class StratifiedSubset(Chosen):
    """The same share of the images of each class, chosen at random; an `ImageSource`.

    Args:
        source: images with labels.
        share: of each class, in (0, 1]; rounded, and at least one image.
        seed: of the choice.

    Raises:
        ValueError: the share is out of range, or the images have no labels.
    """

    def __init__(self, source: ImageSource, share: float, seed: int):
        if not 0 < share <= 1:
            raise ValueError(f"the share of labels must be above 0 and at most 1, not {share}")
        if not source.classes:
            raise ValueError(f"{source.name(0)} and the other images have no labels: {ADVICE}")
        labels = np.fromiter((source.label(index) for index in range(len(source))), np.int32, len(source))  # type: ignore
        members = np.split(np.argsort(labels, kind="stable"), np.cumsum(np.bincount(labels))[:-1])
        generator = np.random.default_rng(sample_seed(seed))
        chosen = [generator.permutation(ones)[: max(1, round(share * len(ones)))] for ones in members if len(ones)]
        super().__init__(source, np.sort(np.concatenate(chosen)))
