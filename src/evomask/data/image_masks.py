"""Images with a label for each pixel: a folder of images and one of masks, or the embedded scenes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from evomask.data.decode import UnreadableImage
from evomask.data.image_folder import ImageFolder
from evomask.data.images import DecodedImages
from evomask.data.layouts import open_encoded
from evomask.data.scene_drawing import CATEGORY_NAMES
from evomask.data.scenes import Scenes

IGNORED = -1
"""The label of pixels that are not looked at."""


class MaskSource(Protocol):
    """Images by number, and their masks."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size."""
        ...

    def mask(self, index: int) -> Tensor:
        """(H, W) long, a label for each pixel, IGNORED for none."""
        ...


class ClassMaskSource(MaskSource, Protocol):
    """Images with masks whose labels have names: what segmentation learns from."""

    @property
    def classes(self) -> list[str]:
        """Names of the labels."""
        ...

    def name(self, index: int) -> str:
        """What to call an image in a log."""
        ...

    def label(self, index: int) -> None:
        """An image as a whole has none; this makes it an `ImageSource`, too."""
        ...

    def mask_of(self, index: int, image: Tensor) -> Tensor:
        """The same as `mask`, for whoever has the image already."""
        ...


class ImageMaskFolders:
    """Every image of one folder with the PNG of the same name in another, whose values are labels.

    Args:
        images: the folder of images, flat or nested.
        masks: the folder of masks, with the same sub-folders.
        ignored: values of pixels that are not looked at.
        channels: of an image.
        classes: the names of the labels, in their order; no other label may be in a mask. None given: any may.
        first: the value that means the first label.

    Raises:
        ValueError: a folder is not there, or holds shards, or an image has no mask.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        ignored: tuple[int, ...] = (),
        channels: int = 3,
        classes: Sequence[str] = (),
        first: int = 0,
    ):
        encoded = open_encoded(images)
        if not isinstance(encoded, ImageFolder):
            raise ValueError(f"{images} is of shards: images with masks are read from two folders of files")
        self._images = DecodedImages(encoded, channels)
        if not masks.is_dir():
            raise ValueError(f"there is no folder {masks}: give the folder that holds the masks")
        names = [Path(self._images.name(index)).relative_to(images) for index in range(len(self._images))]
        self._masks = [masks / name.with_suffix(".png") for name in names]
        missing = [path for path in self._masks if not path.is_file()]
        if missing:
            raise ValueError(f"{len(missing)} of {len(names)} images in {images} have no mask: there is no {missing[0]}")
        self.classes, self._first = list(classes), first
        self._ignored = torch.tensor(ignored, dtype=torch.long)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._masks)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size."""
        return self._images.image(index)

    def name(self, index: int) -> str:
        """The image's path."""
        return self._images.name(index)

    def label(self, index: int) -> None:
        """An image as a whole has none."""

    def mask(self, index: int) -> Tensor:
        """(H, W) long.

        Raises:
            ValueError: see `mask_of`.
        """
        return self.mask_of(index, self.image(index))

    def mask_of(self, index: int, image: Tensor) -> Tensor:
        """(H, W) long, for whoever has the image already.

        Raises:
            ValueError: the file is broken, holds colours instead of labels, is of another size than its image, or has a value
                for which there is no class.
        """
        path = self._masks[index]
        try:
            with Image.open(path) as file:
                if file.mode not in ("L", "P", "I", "I;16", "1"):
                    raise ValueError(f"{path} holds colours ({file.mode}), not a label for each pixel")
                values = torch.from_numpy(np.array(file).astype(np.int64))  # unsigned bytes would wrap around below 0
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # as Pillow has them
            raise ValueError(f"the mask {path} cannot be read: {error}") from error
        if values.shape != image.shape[-2:]:
            given, wanted = (f"{shape[1]} x {shape[0]}" for shape in (values.shape, image.shape[-2:]))
            raise ValueError(f"the mask {path} is of {given} px, and its image of {wanted} px")
        labels = torch.where(torch.isin(values, self._ignored), IGNORED, values - self._first)
        unknown = (
            (labels < IGNORED) | (labels >= len(self.classes)) | ((labels == IGNORED) & ~torch.isin(values, self._ignored))
        )
        if self.classes and unknown.any():
            last = self._first + len(self.classes) - 1
            raise ValueError(
                f"the mask {path} has the value {int(values[unknown][0])}: the {len(self.classes)} classes are the values "
                f"{self._first} to {last}, and ignored are {', '.join(map(str, self._ignored.tolist())) or 'none'}"
            )
        return labels


class WholeImages(Dataset[tuple[Tensor, Tensor]]):
    """`dataset[index] -> (image_uint8 (C, H, W), mask (H, W))`, each in its own size, as evaluation wants them.

    Args:
        source: images with masks.
    """

    def __init__(self, source: ClassMaskSource):
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Raises a ValueError that names the image, or its mask, where it cannot be read."""
        try:
            image = self._source.image(index)
        except UnreadableImage as error:
            raise ValueError(f"{self._source.name(index)} cannot be read: {error}") from error
        return image, self._source.mask_of(index, image)


class SceneMasks:
    """The embedded scenes, whose labels are the objects, or the parts of objects, and 0 for the background.

    Args:
        size: height and width in pixels.
        count: how many scenes.
        parts: label the parts of objects instead of whole ones.
        seed: another seed is another data set.
        channels: of an image.
    """

    def __init__(self, size: tuple[int, int], count: int, parts: bool = False, seed: int = 0, channels: int = 3):
        self._scenes, self._parts = Scenes(size, count, seed=seed, split="val", channels=channels), parts

    def __len__(self) -> int:
        """The number of scenes."""
        return len(self._scenes)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8."""
        return self._scenes.image(index)

    def mask(self, index: int) -> Tensor:
        """(H, W) long."""
        scene = self._scenes.scene(index)
        return scene.part_map if self._parts else scene.object_map


class SceneCategories:
    """The embedded scenes, whose labels are what the objects are, and 0 for the background.

    Args:
        size: height and width in pixels.
        count: how many scenes.
        split: "train" or "val".
        seed: another seed is another data set.
        channels: of an image.
    """

    def __init__(self, size: tuple[int, int], count: int, split: str = "train", seed: int = 0, channels: int = 3):
        self._scenes = Scenes(size, count, seed=seed, split=split, channels=channels)
        self.classes = ["background", *CATEGORY_NAMES]

    def __len__(self) -> int:
        """The number of scenes."""
        return len(self._scenes)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8."""
        return self._scenes.image(index)

    def label(self, index: int) -> None:
        """An image as a whole has none."""

    def name(self, index: int) -> str:
        """A name for logs."""
        return self._scenes.name(index)

    def mask(self, index: int) -> Tensor:
        """(H, W) long."""
        scene = self._scenes.scene(index)
        return torch.cat((torch.zeros(1, dtype=torch.long), 1 + scene.categories))[scene.object_map]

    def mask_of(self, index: int, image: Tensor) -> Tensor:
        """(H, W) long."""
        return self.mask(index)
