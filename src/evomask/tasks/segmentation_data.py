"""Which images with masks an encoder is judged on: ADE20K, folders of images and of masks, or the embedded scenes."""

from dataclasses import dataclass
from pathlib import Path

from evomask.data.image_masks import ClassMaskSource, ImageMaskFolders, SceneCategories
from evomask.data.mask_layouts import open_ade20k, read_classes
from evomask.models.encoders import Encoder


@dataclass(frozen=True, kw_only=True)
class SegmentationDataConfig:
    """Training and validation images, with a class for each pixel.

    Attributes:
        ade20k: the folder ADEChallengeData2016 as published. None: the folders below, or without those the embedded `scenes`.
        train: a folder of images.
        train_masks: a folder with a PNG of the same name for each, whose values are classes, from 0 on.
        val: the same for validation.
        val_masks: the same for validation.
        classes: a text file with the name of each class, a line each, that of value 0 first.
        ignored: values of masks that are neither learnt nor judged.
        scenes: training scenes where no folders are given; there are half as many for validation.
        workers: processes that load images.
    """

    ade20k: Path | None = None
    train: Path | None = None
    train_masks: Path | None = None
    val: Path | None = None
    val_masks: Path | None = None
    classes: Path | None = None
    ignored: tuple[int, ...] = (255,)
    scenes: int = 2_000
    workers: int = 2

    def sources(self, encoder: Encoder) -> tuple[ClassMaskSource, ClassMaskSource]:
        """Training and validation images of the encoder's channels; scenes are of its size, too.

        Raises:
            ValueError: some of the folders are given and others are not, or one of them cannot be used.
        """
        channels = encoder.in_chans
        folders = {"train": self.train, "train-masks": self.train_masks, "val": self.val, "val-masks": self.val_masks}
        given = {name: path for name, path in (folders | {"classes": self.classes}).items() if path is not None}
        if self.ade20k is not None:
            if given:
                raise ValueError(f"--ade20k names all there is: leave out --{' and --'.join(given)}")
            return open_ade20k(self.ade20k, "training", channels), open_ade20k(self.ade20k, "validation", channels)
        if not given:
            count = max(1, self.scenes // 2)
            size = encoder.image_size
            train = SceneCategories(size, self.scenes, channels=channels)
            return train, SceneCategories(size, count, split="val", channels=channels)
        if self.train is None or self.train_masks is None or self.val is None or self.val_masks is None or self.classes is None:
            missing = [name for name in (*folders, "classes") if name not in given]
            raise ValueError(f"--{' and --'.join(missing)} are missing: give all five, or --ade20k, or none for the scenes")
        names = read_classes(self.classes)
        train = ImageMaskFolders(self.train, self.train_masks, self.ignored, channels, names)
        return train, ImageMaskFolders(self.val, self.val_masks, self.ignored, channels, names)
