"""The images of questions: cropped at random to be trained on, whole to be asked about."""

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from evomask.data.decode import UnreadableImage
from evomask.data.questions import Questions
from evomask.data.random_crop import random_crop
from evomask.data.readable import ReadableImages
from evomask.data.sampler import Key, sample_seed


class QuestionImages:
    """An `ImageSource` that has the image of each question under the question's number."""

    def __init__(self, questions: Questions):
        self.classes: list[str] = []
        self._images, self._image_of = questions.images, questions.image_of

    def __len__(self) -> int:
        """The number of questions."""
        return len(self._image_of)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size."""
        return self._images.image(int(self._image_of[index]))

    def label(self, index: int) -> None:
        """None: there are no classes."""

    def name(self, index: int) -> str:
        """What to call it in a log."""
        return self._images.name(int(self._image_of[index]))


class QuestionCrops(Dataset[tuple[Tensor, int]]):
    """`dataset[epoch, index] -> (image_uint8 (C, H, W), index)`, a function of (seed, epoch, index) alone.

    The index that comes back is that of the question to be asked: another one where the image cannot be read, see
    `ReadableImages`. Texts stay in the process that trains.

    Args:
        questions: about images.
        size: height and width of a crop.
        channels: of an image.
        seed: of all draws.
        scale: range of the share of the image's area that a crop takes; (1, 1) is all of it, whatever its proportions.
        flip: whether crops are mirrored at random.

    Raises:
        ValueError: the scale is no range of shares.
    """

    def __init__(
        self,
        questions: Questions,
        size: tuple[int, int],
        channels: int,
        seed: int,
        scale: tuple[float, float] = (0.5, 1.0),
        flip: bool = True,
    ):
        self.source = QuestionImages(questions)
        self._seed = seed
        self._images = ReadableImages(self.source, channels, size, seed)
        # Even of a crop that is to take the whole area torchvision cuts what goes beyond proportions of 4 to 3.
        whole = v2.Resize(list(size), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
        crop = whole if scale == (1, 1) else random_crop(size, scale)
        self._augment = v2.Compose([crop, v2.RandomHorizontalFlip()]) if flip else crop

    def __len__(self) -> int:
        """The number of questions."""
        return len(self.source)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        """The image of one question in one epoch."""
        epoch, index = key
        image, used = self._images.get(epoch, index)
        torch.default_generator.manual_seed(sample_seed(self._seed, epoch, index))
        return self._augment(image), used


class WholeQuestionImages(Dataset[tuple[Tensor, int]]):
    """`dataset[index] -> (image_uint8 (C, H, W), index)`: the whole image, scaled to the size.

    Its proportions may change. What lies at its edges would else be cut off, and is counted, too.

    Args:
        questions: about images.
        size: height and width.
    """

    def __init__(self, questions: Questions, size: tuple[int, int]):
        self._source, self._size = QuestionImages(questions), size

    def __len__(self) -> int:
        """The number of questions."""
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Raises a ValueError that names the image, where it cannot be read."""
        try:
            image = self._source.image(index)
        except UnreadableImage as error:
            raise ValueError(f"{self._source.name(index)} cannot be read: {error}") from error
        return functional.resize(image, list(self._size), v2.InterpolationMode.BICUBIC, antialias=True), index
