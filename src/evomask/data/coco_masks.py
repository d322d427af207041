"""Images with COCO's instance annotations, as a label for each pixel: which object it shows."""

import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evomask.data.decode import UnreadableImage, decode
from evomask.data.image_masks import IGNORED


class CocoMasks:
    """The images of a folder that the annotations name, with 0 for the background and 1, 2, ... for the objects.

    Where objects overlap, the smaller one is seen. Crowds, which are no single object, are IGNORED.

    Args:
        images: the folder of images.
        annotations: a file such as instances_val2017.json.
        channels: of an image.

    Raises:
        ValueError: pycocotools is not installed, the folder or file is not there or is of another kind, or an image is missing.
    """

    def __init__(self, images: Path, annotations: Path, channels: int = 3):
        try:
            from pycocotools import mask
        except ImportError as error:
            raise ValueError("COCO's annotations are read with pycocotools: pip install pycocotools") from error
        self._decoder: Any = mask
        try:
            record = json.loads(annotations.read_text())
            named = {image["id"]: image for image in record["images"]}
            objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
            for annotation in record["annotations"]:
                objects[annotation["image_id"]].append(annotation)
        except OSError as error:
            raise ValueError(f"the annotations {annotations} cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{annotations} holds no instance annotations in COCO's format ({error!r})") from error
        if not images.is_dir():
            raise ValueError(f"there is no folder {images}: give the folder that holds the images")
        # An image that nothing is said of may show what it likes: it is left out.
        self._images = [named[number] for number in sorted(named) if number in objects]
        self._objects = [objects[image["id"]] for image in self._images]
        self._paths = [images / image["file_name"] for image in self._images]
        if not self._images:
            raise ValueError(f"{annotations} annotates no image")
        missing = [path for path in self._paths if not path.is_file()]
        if missing:
            raise ValueError(f"{len(missing)} of {len(self._paths)} annotated images are not in {images}: {missing[0].name}")
        self._channels = channels

    def __len__(self) -> int:
        """The number of images."""
        return len(self._paths)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size.

        Raises:
            ValueError: it cannot be read.
        """
        try:
            return decode(self._paths[index].read_bytes(), self._channels)
        except UnreadableImage as error:
            raise ValueError(f"{self._paths[index]} cannot be read: {error}") from error

    def mask(self, index: int) -> Tensor:
        """(H, W) long."""
        height, width = self._images[index]["height"], self._images[index]["width"]
        shapes = [self._pixels(each["segmentation"], height, width) for each in self._objects[index]]
        labels = torch.zeros(height, width, dtype=torch.long)
        for number in sorted(range(len(shapes)), key=lambda number: -int(shapes[number].sum())):
            crowd = self._objects[index][number].get("iscrowd", 0)
            labels[shapes[number]] = IGNORED if crowd else number + 1
        return labels

    def _pixels(self, segmentation: Any, height: int, width: int) -> Tensor:
        """(H, W) bool, of polygons, or of run lengths as text or as numbers."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # numpy's, of how pycocotools hands over its arrays
            if isinstance(segmentation, list):
                encoded = self._decoder.merge(self._decoder.frPyObjects(segmentation, height, width))
            elif isinstance(segmentation["counts"], list):
                encoded = self._decoder.frPyObjects(segmentation, height, width)
            else:
                encoded = segmentation
            return torch.from_numpy(self._decoder.decode(encoded)).bool()
