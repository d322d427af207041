"""Images with objects in COCO's layout: a json file of annotations, and the folder of the images that it speaks of."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evomask.data.coco_json import cut_at_edges, index_coco_json
from evomask.data.decode import UnreadableImage, check_channels, decode
from evomask.data.index import load_index
from evomask.data.instances import Instances
from evomask.data.rle import decode_mask

logger = logging.getLogger("evomask")


class CocoImages:
    """An `InstanceSource`. Labels are 1 to n in the order of the categories' ids, which may have gaps, as COCO's have.

    Annotations that cannot be used, with a box of no area or outside the image, or without an outline, are counted in the log
    and left out. Crowds are not learnt from; in the truth they stay, so that what is found in one counts neither for nor
    against a detector.

    Args:
        annotations: the json file: `images`, `annotations` and `categories`.
        images: the folder that its file names start from.
        channels: of an image.
        skip_empty: leave out images without an object to learn from; they are counted in the log.

    Raises:
        ValueError: the file is not there, is no such file or contradicts itself, images are missing, or there is no object.
    """

    def __init__(self, annotations: Path, images: Path, channels: int = 3, skip_empty: bool = False):
        check_channels(channels)
        self._folder, self._channels = images, channels
        if not annotations.is_file():
            raise ValueError(f"there is no file {annotations}: give COCO's json file of annotations")
        self._index = load_index("coco", os.path.realpath(annotations), lambda: index_coco_json(annotations))
        self.classes: list[str] = self._index.facts["classes"]
        self._category_ids: list[int] = self._index.facts["category_ids"]
        self._check_images_are_there(annotations)
        if left_out := self._index.facts["left_out"]:
            reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
            logger.warning("%s: %d annotations are left out: %s", annotations, sum(left_out.values()), reasons)
        total = len(self._index.arrays["image_ids"])
        self._chosen = self._with_objects() if skip_empty else np.arange(total)
        if not len(self._chosen):
            raise ValueError(f"{annotations} has no object to learn from: all are crowds")
        if len(self._chosen) < total:
            empty = total - len(self._chosen)
            logger.info("%s: %d of %d images have no object to learn from and are left out", annotations, empty, total)

    def __len__(self) -> int:
        """The number of images."""
        return len(self._chosen)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size.

        Raises:
            UnreadableImage: it is broken or gone, or of another size than the annotations are for.
        """
        try:
            with open(self.name(index), "rb") as file:
                image = decode(file.read(), self._channels)
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        if image.shape[-2:] != self._size(index):
            given, said = (f"{width} x {height} px" for height, width in (image.shape[-2:], self._size(index)))
            raise UnreadableImage(f"it is of {given}, and its annotations are for {said}")
        return image

    @property
    def categories(self) -> list[tuple[int, str]]:
        """Id and name of each, in the order of labels."""
        return list(zip(self._category_ids, self.classes, strict=True))

    def label(self, index: int) -> None:
        """None: an image has objects instead."""

    def name(self, index: int) -> str:
        """The file's path."""
        return os.path.join(self._folder, self._index.name(int(self._chosen[index])))

    def instances(self, index: int) -> Instances:
        """The objects that are no crowds; boxes are cut at the edges of the image."""
        size, arrays = self._size(index), self._index.arrays
        rows = [row for row in self._rows(index) if not arrays["crowds"][row]]
        if not rows:
            return Instances.none(size)
        boxes = torch.from_numpy(cut_at_edges(arrays["boxes"][rows], size)).float()
        masks = torch.stack([decode_mask(self._outline(row), size) for row in rows])
        return Instances(boxes, torch.from_numpy(arrays["labels"][rows]), masks)

    def outlines(self, index: int) -> tuple[Tensor, list[bool]]:
        """(K, H, W) bool of all annotations of an image that has some, crowds included, and which of them are crowds."""
        size, rows = self._size(index), self._rows(index)
        return torch.stack([decode_mask(self._outline(row), size) for row in rows]), self._index.arrays["crowds"][rows].tolist()

    def image_id(self, index: int) -> int:
        """The image's id in the file."""
        return int(self._index.arrays["image_ids"][self._chosen[index]])

    def category_id(self, label: int) -> int:
        """The category's id in the file."""
        return self._category_ids[label - 1]

    def truth(self) -> dict[str, Any]:
        """What the file says of these images, crowds included, without what is left out. Ids of annotations are 1, 2, ...

        An annotation of id 0 would never count as found: the matching takes 0 for none.
        """
        arrays = self._index.arrays
        images, annotations = [], []
        for index in range(len(self)):
            height, width = self._size(index)
            images.append({"id": self.image_id(index), "height": height, "width": width})
            annotations += [
                {
                    "image_id": self.image_id(index),
                    "category_id": self.category_id(int(arrays["labels"][row])),
                    "bbox": arrays["boxes"][row].tolist(),
                    "area": float(arrays["areas"][row]),
                    "iscrowd": int(arrays["crowds"][row]),
                    "segmentation": self._outline(row),
                }
                for row in self._rows(index)
            ]
        return {
            "images": images,
            "annotations": [{"id": number} | entry for number, entry in enumerate(annotations, start=1)],
            "categories": [{"id": id_, "name": name} for id_, name in self.categories],
        }

    def _size(self, index: int) -> tuple[int, int]:
        height, width = self._index.arrays["sizes"][self._chosen[index]].tolist()
        return height, width

    def _rows(self, index: int) -> range:
        begins, number = self._index.arrays["begins"], self._chosen[index]
        return range(int(begins[number]), int(begins[number + 1]))

    def _outline(self, row: int) -> Any:
        ends = self._index.arrays["outline_ends"]
        return json.loads(self._index.arrays["outlines"][ends[row - 1] if row else 0 : ends[row]].tobytes())

    def _with_objects(self) -> np.ndarray:
        begins = self._index.arrays["begins"]
        learnt_before = np.concatenate(([0], np.cumsum(~self._index.arrays["crowds"])))
        return np.flatnonzero(np.diff(learnt_before[begins]))

    def _check_images_are_there(self, annotations: Path) -> None:
        if not self._folder.is_dir():
            raise ValueError(f"there is no folder {self._folder}: give the folder of the images that {annotations} speaks of")
        names = [self._index.name(number) for number in range(len(self._index.arrays["image_ids"]))]
        there = {folder: _names_in(self._folder / folder) for folder in {os.path.dirname(name) for name in names}}
        missing = [name for name in names if os.path.basename(name) not in there[os.path.dirname(name)]]
        if missing:
            count = f"{len(missing)} of the {len(names)} images that {annotations} speaks of"
            raise ValueError(f"{count} are not in {self._folder}: there is no {missing[0]}")


def _names_in(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()
