"""Images as pretraining wants them: cropped and flipped at random, each with the noise that its mask is made of."""

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from evomask.data.images import ImageSource
from evomask.data.random_crop import random_crop
from evomask.data.readable import ReadableImages
from evomask.data.sampler import Key, sample_seed


class PretrainingImages(Dataset[tuple[Tensor, Tensor, int]]):
    """`dataset[epoch, index] -> (image_uint8 (C, H, W), noise_N, index)`, a function of (seed, epoch, index) alone.

    The index that comes back is that of the image that was used, another one where a file cannot be read, see
    `ReadableImages`.

    Args:
        source: the images.
        size: height and width of a crop.
        channels: of an image.
        patches: how many numbers of noise, uniform in [0, 1), an image gets: N for each of its masks.
        seed: of all draws.
        scale: range of the share of the image's area that a crop takes.
        flip: whether crops are mirrored at random.

    Raises:
        ValueError: the scale is no range of shares.
    """

    def __init__(
        self,
        source: ImageSource,
        size: tuple[int, int],
        channels: int,
        patches: int,
        seed: int,
        scale: tuple[float, float] = (0.2, 1.0),
        flip: bool = True,
    ):
        self.source = source
        self._patches, self._seed = patches, seed
        self._images = ReadableImages(source, channels, size, seed)
        crop = random_crop(size, scale, option="--data.crop-scale")
        self._augment = v2.Compose([crop, v2.RandomHorizontalFlip()]) if flip else crop

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, int]:
        """One image of one epoch."""
        epoch, index = key
        image, used = self._images.get(epoch, index)
        # The transforms draw from torch's generator; seeding it this way costs microseconds, torch.manual_seed 100 times that.
        torch.default_generator.manual_seed(sample_seed(self._seed, epoch, index))
        noise_N = torch.rand(self._patches)  # first, so that masks do not change with the augmentation
        return self._augment(image), noise_N, used
