"""Which images with objects an encoder is judged on: two COCO json files with their folders, or the embedded scenes."""

from dataclasses import dataclass
from pathlib import Path

from evomask.data.coco import CocoImages
from evomask.data.instances import InstanceSource, ScenesWithObjects


@dataclass(frozen=True, kw_only=True)
class DetectionDataConfig:
    """Training and validation images, and their size.

    Attributes:
        train: COCO's json file of annotations for training. None: the embedded `scenes`.
        train_images: the folder of the images that it speaks of.
        val: annotations for validation, with the same categories.
        val_images: the folder of their images.
        scenes: training scenes where no files are given; there are half as many for validation.
        image_size: side in pixels of the square that images are scaled to fit in.
        workers: processes that load images.
    """

    train: Path | None = None
    train_images: Path | None = None
    val: Path | None = None
    val_images: Path | None = None
    scenes: int = 2_000
    image_size: int = 1024
    workers: int = 2

    def sources(self, channels: int) -> tuple[InstanceSource, InstanceSource]:
        """Training images, those with objects, and all validation images, with that many channels.

        Raises:
            ValueError: only some of the paths are given, files cannot be used, see `CocoImages`, or their categories differ.
        """
        paths = (self.train, self.train_images, self.val, self.val_images)
        if all(path is None for path in paths):
            train = ScenesWithObjects((self.image_size, self.image_size), self.scenes, channels=channels)
            return train, self.validation_source(channels)
        if self.train is None or self.train_images is None or self.val is None or self.val_images is None:
            raise ValueError("give all of --train, --train-images, --val and --val-images, or none for the embedded scenes")
        train = CocoImages(self.train, self.train_images, channels, skip_empty=True)
        val = CocoImages(self.val, self.val_images, channels)
        if train.categories != val.categories:
            differing = sorted({name for _, name in set(train.categories) ^ set(val.categories)})
            raise ValueError(f"{self.train} and {self.val} differ in their categories: {', '.join(differing[:5])}")
        return train, val

    def validation_source(self, channels: int) -> InstanceSource:
        """All validation images, with that many channels.

        Raises:
            ValueError: files cannot be used, see `CocoImages`.
        """
        if self.val is None or self.val_images is None:
            size, count = (self.image_size, self.image_size), max(1, self.scenes // 2)
            return ScenesWithObjects(size, count, split="val", channels=channels)
        return CocoImages(self.val, self.val_images, channels)
