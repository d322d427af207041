"""A COCO json file, checked and packed into arrays: what `data/coco.py` looks images up in."""

import json
import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evomask.data.index import Index, pack_names, stamp
from evomask.data.rle import usable_segmentation

Entry = Mapping[str, Any]


class _Image(NamedTuple):
    file: str
    size: tuple[int, int]


class _Annotation(NamedTuple):
    box: list[float]
    category: int
    area: float
    crowd: bool
    outline: bytes


def index_coco_json(file: Path) -> Index:
    """What a file says, in the order of its images.

    Arrays: the packed file names, `image_ids` (n,), `sizes` (n, 2) height and width, `begins` (n + 1,) where the annotations of
    each image begin; and of m annotations `boxes` (m, 4) as the file has them, left, top, width, height, `labels` (m,) from 1
    in the order of the categories' ids, `areas` (m,), `crowds` (m,), the packed json of their `outlines`, and `outline_ends`.
    Facts: `classes`, `category_ids`, and `left_out`, how many annotations cannot be used, by the reason.

    Raises:
        ValueError: it is no COCO json file, contradicts itself, or there is nothing in it that can be used.
    """
    stamps = [stamp(os.path.realpath(file))]
    content = _Content()
    record = _read(file, list(content.sections))
    for section, (kind, take) in content.sections.items():
        for number, entry in enumerate(record[section]):
            try:
                if not isinstance(entry, dict):
                    raise TypeError(f"is no object, but {entry!r:.40}")
                take(entry)
            except (ValueError, TypeError, KeyError) as error:
                called = entry["id"] if isinstance(entry, dict) and "id" in entry else f"number {number + 1}"
                said = f"has no {error}" if isinstance(error, KeyError) else error
                raise ValueError(f"{file}: {kind} {called} {said}") from error
    if not content.annotations:
        why = "; ".join(f"{count} {reason}" for reason, count in content.left_out.items())
        raise ValueError(f"{file} has no annotation that can be used: {why or 'there is none at all'}")
    return Index(content.packed(), content.facts(), stamps)


def cut_at_edges(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """(..., 4) left, top, width, height -> left, top, right, bottom, within an image of that height and width."""
    corners = np.concatenate((boxes[..., :2], boxes[..., :2] + boxes[..., 2:]), axis=-1)
    return corners.clip(0, [size[1], size[0]] * 2)


class _Content:
    """What has been read of a file so far."""

    def __init__(self):
        self.categories: dict[int, str] = {}
        self.images: dict[int, _Image] = {}
        self.annotations: dict[int, list[_Annotation]] = defaultdict(list)
        self.left_out: Counter[str] = Counter()
        self._ids: set[int] = set()
        self.sections: dict[str, tuple[str, Callable[[Entry], None]]] = {
            "categories": ("category", self._take_category),
            "images": ("image", self._take_image),
            "annotations": ("annotation", self._take_annotation),
        }

    def _take_category(self, entry: Entry) -> None:
        self.categories[_new_id(entry, self.categories)] = str(entry["name"])

    def _take_image(self, entry: Entry) -> None:
        size = _whole(entry, "height"), _whole(entry, "width")
        if min(size) < 1:
            raise ValueError(f"is of {size[1]} x {size[0]} px")
        self.images[_new_id(entry, self.images)] = _Image(str(entry["file_name"]), size)

    def _take_annotation(self, entry: Entry) -> None:
        self._ids.add(_new_id(entry, self._ids))
        image, category = _whole(entry, "image_id"), _whole(entry, "category_id")
        if image not in self.images:
            raise ValueError(f"is of image {image}, which is not in the file")
        if category not in self.categories:
            raise ValueError(f"is of category {category}, which is not in the file")
        box = [float(number) for number in entry["bbox"]]
        if len(box) != 4 or not all(map(math.isfinite, box)):
            raise ValueError(f"has a box that is not four numbers: {entry['bbox']}")
        size = self.images[image].size
        outline = usable_segmentation(entry.get("segmentation"), size)
        left, top, right, bottom = cut_at_edges(np.array(box), size)
        if min(box[2:]) <= 0:
            self.left_out["with a box of no area"] += 1
        elif left >= right or top >= bottom:
            self.left_out["outside the image"] += 1
        elif outline is None:
            self.left_out["without an outline"] += 1
        else:
            area, crowd = entry.get("area"), bool(entry.get("iscrowd", 0))
            area = box[2] * box[3] if area is None else float(area)
            text = json.dumps(outline, separators=(",", ":")).encode()
            self.annotations[image].append(_Annotation(box, category, area, crowd, text))

    def facts(self) -> dict[str, Any]:
        ids, uses = sorted(self.categories), Counter(self.categories.values())
        # Two categories of one name are told apart by their ids, as are their rows in what is reported.
        classes = [name if uses[name] == 1 else f"{name} ({id_})" for id_, name in sorted(self.categories.items())]
        return {"category_ids": ids, "classes": classes, "left_out": dict(self.left_out)}

    def packed(self) -> dict[str, NDArray[Any]]:
        of_images = [self.annotations.get(id_, []) for id_ in self.images]
        ordered = [annotation for some in of_images for annotation in some]
        label_of = {id_: label for label, id_ in enumerate(sorted(self.categories), start=1)}
        return {
            **pack_names([image.file for image in self.images.values()]),
            "image_ids": np.array(list(self.images), np.int64),
            "sizes": np.array([image.size for image in self.images.values()], np.int32),
            "begins": np.cumsum([0, *map(len, of_images)], dtype=np.int64),
            "boxes": np.array([each.box for each in ordered], np.float64),
            "labels": np.array([label_of[each.category] for each in ordered], np.int64),
            "areas": np.array([each.area for each in ordered], np.float64),
            "crowds": np.array([each.crowd for each in ordered], np.bool_),
            "outlines": np.frombuffer(b"".join(each.outline for each in ordered), np.uint8),
            "outline_ends": np.cumsum([len(each.outline) for each in ordered], dtype=np.int64),
        }


def _read(file: Path, sections: list[str]) -> dict[str, list[Any]]:
    try:
        record = json.loads(file.read_bytes())
    except (ValueError, OSError) as error:
        raise ValueError(f"{file} is no COCO json file of annotations: {error}") from error
    if isinstance(record, list):
        raise ValueError(f"{file} is no COCO json file of annotations: it is a list, as a file of detections is")
    missing = [name for name in sections if not isinstance(record, dict) or not isinstance(record.get(name), list)]
    if missing:
        raise ValueError(f"{file} is no COCO json file of annotations: it has no list of {' and none of '.join(missing)}")
    return record


def _whole(entry: Entry, name: str) -> int:
    value = entry[name]
    if not isinstance(value, (int, float)) or not math.isfinite(value) or value != int(value) or abs(value) >= 2**63:
        raise ValueError(f"its {name} is no whole number of 64 bits: {value!r}")
    return int(value)


def _new_id(entry: Entry, taken: Container[int]) -> int:
    id_ = _whole(entry, "id")
    if id_ in taken:
        raise ValueError("has an id that another one has, too")
    return id_
