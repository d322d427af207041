"""Images as pretraining wants them: cropped and flipped at random, each with the noise that its mask is made of."""

import logging

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from evomask.data.decode import UnreadableImage
from evomask.data.images import ImageSource
from evomask.data.sampler import Key, sample_seed

logger = logging.getLogger("evomask")

REPLACEMENTS = 10


class PretrainingImages(Dataset[tuple[Tensor, Tensor, int]]):
    """`dataset[epoch, index] -> (image_uint8 (C, H, W), noise_N, index)`, a function of (seed, epoch, index) alone.

    A file that cannot be read is named in the log and replaced by another one, always the same; the index that comes back is
    that of the image that was used, -1 where none was found.

    Args:
        source: the images.
        size: height and width of a crop.
        channels: of an image.
        patches: N, how many numbers of noise, uniform in [0, 1), an image gets.
        seed: of all draws.
        scale: range of the share of the image's area that a crop takes.
        flip: whether crops are mirrored at random.
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
        if not 0 < scale[0] <= scale[1] <= 1:
            raise ValueError(f"--data.crop-scale is a range of shares of the area, within (0, 1], not {scale}")
        self.source = source
        self._size, self._channels, self._patches, self._seed = size, channels, patches, seed
        crop = v2.RandomResizedCrop(list(size), scale=scale, interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        self._augment = v2.Compose([crop, v2.RandomHorizontalFlip()]) if flip else crop
        self._complained: set[int] = set()

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, key: Key) -> tuple[Tensor, Tensor, int]:
        """One image of one epoch."""
        epoch, index = key
        image, used = self._readable(epoch, index)
        # The transforms draw from torch's generator; seeding it this way costs microseconds, torch.manual_seed 100 times that.
        torch.default_generator.manual_seed(sample_seed(self._seed, epoch, index))
        noise_N = torch.rand(self._patches)  # first, so that masks do not change with the augmentation
        return self._augment(image), noise_N, used

    def _readable(self, epoch: int, index: int) -> tuple[Tensor, int]:
        for attempt in range(1, REPLACEMENTS + 1):
            try:
                return self.source.image(index), index
            except UnreadableImage as error:
                if index not in self._complained:
                    self._complained.add(index)
                    logger.warning("%s cannot be read and is replaced by another image: %s", self.source.name(index), error)
                index = sample_seed(self._seed, epoch, index, attempt) % len(self.source)
        # So many in a row: far too many files are broken, and whoever counts them is about to stop the run.
        return torch.zeros(self._channels, *self._size, dtype=torch.uint8), -1
