"""Which labelled images an encoder is judged on: two folders with the same classes, or the embedded scenes."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from evomask.data.images import ImageSource
from evomask.data.layouts import open_images
from evomask.data.scenes import Scenes
from evomask.models.encoders import Encoder


@dataclass(frozen=True, kw_only=True)
class LabelledDataConfig:
    """Training and validation images.

    Attributes:
        train: a folder with a sub-folder of images for each class, or labelled parquet or tar shards: a folder of them, one, or
            a pattern such as 'shards/train-*.tar'. None: the embedded `scenes`.
        val: the same classes once more, in any of these forms.
        scenes: training scenes where no folders are given; there are half as many for validation.
        workers: processes that load images.
    """

    train: Path | None = None
    val: Path | None = None
    scenes: int = 2_000
    workers: int = 2

    def sources(self, encoder: Encoder) -> tuple[ImageSource, ImageSource]:
        """Training and validation images of the encoder's size and channels.

        Raises:
            ValueError: only one of the folders is given, or their classes differ.
        """
        if (self.train is None) != (self.val is None):
            raise ValueError("give both --train and --val, or neither for the embedded scenes")
        if self.train is None or self.val is None:
            size, channels = encoder.image_size, encoder.in_chans
            val_count = max(1, self.scenes // 2)
            return Scenes(size, self.scenes, channels=channels), Scenes(size, val_count, split="val", channels=channels)
        train, val = (open_images(root, channels=encoder.in_chans) for root in (self.train, self.val))
        if train.classes != val.classes:
            differing = sorted(set(train.classes) ^ set(val.classes))
            raise ValueError(f"{self.train} and {self.val} differ in their classes: {', '.join(differing[:5])}")
        return train, val


def check_shown(share: float) -> None:
    """Raise a ValueError where it is not how much of an image's shorter side can be seen."""
    if not 0 < share <= 1:
        raise ValueError(f"--shown is how much of an image's shorter side is seen, above 0 and up to 1, not {share}")


def check_trainable(source: ImageSource) -> None:
    """Raise a ValueError where a classifier cannot learn from these images: no labels, or a class with a single image."""
    if len(source.classes) < 2:
        raise ValueError("a classifier needs at least 2 classes: put the images of each class in a folder of its own")
    images_of = Counter(source.label(index) for index in range(len(source)))
    for label, name in enumerate(source.classes):
        if images_of[label] < 2:
            count = "one image" if images_of[label] else "no image"
            raise ValueError(f"class {name!r} has {count} for training, and needs at least 2: add some or leave the class out")
