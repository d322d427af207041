"""Images with a label for each pixel: a folder of images and one of masks, or the embedded scenes."""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from evomask.data.layouts import open_images
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


class ImageMaskFolders:
    """Every image of one folder with the PNG of the same name in another, whose values are labels.

    Args:
        images: the folder of images, flat or nested.
        masks: the folder of masks, with the same sub-folders.
        ignored: values of pixels that are not looked at.
        channels: of an image.

    Raises:
        ValueError: a folder is not there, or an image has no mask.
    """

    def __init__(self, images: Path, masks: Path, ignored: tuple[int, ...] = (), channels: int = 3):
        self._images = open_images(images, channels)
        if not masks.is_dir():
            raise ValueError(f"there is no folder {masks}: give the folder that holds the masks")
        names = [Path(self._images.name(index)).relative_to(images) for index in range(len(self._images))]
        self._masks = [masks / name.with_suffix(".png") for name in names]
        missing = [path for path in self._masks if not path.is_file()]
        if missing:
            raise ValueError(f"{len(missing)} of {len(names)} images in {images} have no mask: there is no {missing[0]}")
        self._ignored = ignored

    def __len__(self) -> int:
        """The number of images."""
        return len(self._masks)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size."""
        return self._images.image(index)

    def mask(self, index: int) -> Tensor:
        """(H, W) long.

        Raises:
            ValueError: the file is broken, holds colours instead of labels, or is of another size than its image.
        """
        path = self._masks[index]
        try:
            with Image.open(path) as file:
                if file.mode not in ("L", "P", "I", "I;16", "1"):
                    raise ValueError(f"{path} holds colours ({file.mode}), not a label for each pixel")
                mask = torch.from_numpy(np.array(file).astype(np.int64))
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"the mask {path} cannot be read: {error}") from error
        size = self.image(index).shape[-2:]
        if mask.shape != size:
            given, wanted = (f"{shape[1]} x {shape[0]}" for shape in (mask.shape, size))
            raise ValueError(f"the mask {path} is of {given} px, and its image of {wanted} px")
        return torch.where(torch.isin(mask, torch.tensor(self._ignored, dtype=torch.long)), IGNORED, mask)


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
