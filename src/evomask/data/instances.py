"""Images with objects: for each object its class, its box and its mask. COCO's files, or the embedded scenes."""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from evomask.data.rle import encode_masks
from evomask.data.scene_drawing import CATEGORY_NAMES
from evomask.data.scenes import Scenes


@dataclass(frozen=True, eq=False)
class Instances:
    """The K objects of an image.

    Attributes:
        boxes: (K, 4) float, left, top, right, bottom in pixels, within the image; right and bottom are exclusive.
        labels: (K,) long, from 1; 0 is left to the background.
        masks: (K, H, W) bool.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor

    @classmethod
    def none(cls, size: tuple[int, int]) -> "Instances":
        """No object, in an image of that height and width."""
        return cls(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), torch.zeros(0, *size, dtype=torch.bool))


class InstanceSource(Protocol):
    """Images by number, and their objects; an `ImageSource`, whose classes are those of objects.

    Attributes:
        classes: their names; that of label 1 is the first.
    """

    classes: list[str]

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size."""
        ...

    def label(self, index: int) -> int | None:
        """None: an image has objects instead."""
        ...

    def name(self, index: int) -> str:
        """What to call it in a log."""
        ...

    def instances(self, index: int) -> Instances:
        """The objects to learn from."""
        ...

    def image_id(self, index: int) -> int:
        """The image's number in `truth`."""
        ...

    def category_id(self, label: int) -> int:
        """The number in `truth` of a class."""
        ...

    def truth(self) -> dict[str, Any]:
        """All images, categories and annotations as a COCO json file has them: what detections are judged by."""
        ...


class ScenesWithObjects:
    """The embedded scenes as an `InstanceSource`; the mask of an object is what can be seen of it.

    Args:
        size: height and width in pixels.
        count: how many scenes.
        split: "train" or "val".
        channels: of an image.
    """

    def __init__(self, size: tuple[int, int], count: int, split: str = "train", channels: int = 3):
        self._scenes = Scenes(size, count, split=split, channels=channels)
        self._size = size
        self.classes = list(CATEGORY_NAMES)

    def __len__(self) -> int:
        """The number of scenes."""
        return len(self._scenes)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8."""
        return self._scenes.image(index)

    def label(self, index: int) -> None:
        """None: an image has objects instead."""

    def name(self, index: int) -> str:
        """What to call it in a log."""
        return self._scenes.name(index)

    def instances(self, index: int) -> Instances:
        """The objects that can be seen."""
        scene = self._scenes.scene(index)
        return Instances(scene.boxes, scene.categories + 1, scene.instance_masks)

    def image_id(self, index: int) -> int:
        """The image's number in `truth`."""
        return index + 1

    def category_id(self, label: int) -> int:
        """The label itself."""
        return label

    def truth(self) -> dict[str, Any]:
        """All scenes as a COCO json file has them."""
        height, width = self._size
        annotations: list[dict[str, Any]] = []
        for index in range(len(self)):
            found = self.instances(index)
            encoded = encode_masks(found.masks)
            for box, label, mask, segmentation in zip(found.boxes, found.labels, found.masks, encoded, strict=True):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": self.image_id(index),
                        "category_id": int(label),
                        "bbox": to_xywh(box).tolist(),
                        "area": int(mask.sum()),
                        "iscrowd": 0,
                        "segmentation": segmentation,
                    }
                )
        return {
            "images": [{"id": self.image_id(index), "height": height, "width": width} for index in range(len(self))],
            "annotations": annotations,
            "categories": [{"id": number, "name": name} for number, name in enumerate(self.classes, start=1)],
        }


def to_xywh(boxes: Tensor) -> Tensor:
    """(..., 4) left, top, right, bottom -> left, top, width, height, as COCO writes boxes."""
    return torch.cat((boxes[..., :2], boxes[..., 2:] - boxes[..., :2]), dim=-1)
