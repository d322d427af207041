"""How many there are, and whether there are any: questions made of what is known to be in images, in GVTBench's wording."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evomask.data.image_files import files_of
from evomask.data.images import DecodedImages, ImageSource
from evomask.data.json_rows import read_json, rows_of
from evomask.data.questions import Questions
from evomask.data.sampler import sample_seed
from evomask.data.scene_drawing import CATEGORY_NAMES
from evomask.data.scenes import Scenes

MOST = 9
"""No question asks for a higher count."""

_COCO = "COCO's json file of annotations, or one of GVTBench"
_IRREGULAR = {"person": "people", "mouse": "mice", "knife": "knives", "broccoli": "broccoli"}
_ALIKE = ("sheep", "skis", "scissors", "fish")


@dataclass(frozen=True, eq=False)
class Objects:
    """What is in images.

    Attributes:
        images: a source.
        counts: of each image, how many of each category there are, those that are there.
        uncounted: of each image, the categories that are there in a number that is not known, as of a crowd.
        categories: all there could be.
    """

    images: ImageSource
    counts: Sequence[Mapping[str, int]]
    uncounted: Sequence[frozenset[str]]
    categories: Sequence[str]


def scene_objects(scenes: Scenes) -> Objects:
    """What is in the embedded scenes."""
    counts = [scenes.counts(number) for number in range(len(scenes))]
    return Objects(scenes, counts, [frozenset()] * len(counts), CATEGORY_NAMES)


def coco_objects(file: Path, images: Path, channels: int = 3, record: Any = None) -> Objects:
    """What a COCO json file says, of which only categories, images' names and the category of each annotation are looked at.

    Args:
        file: instances_train2017.json, for example.
        images: the folder that its file names start from.
        channels: of an image.
        record: its content, where it has been read already.

    Raises:
        ValueError: it is no such file, or images are missing.
    """
    record = read_json(file, _COCO) if record is None else record
    names = dict(rows_of(file, _COCO, record, lambda row: (int(row["id"]), str(row["name"])), "categories"))
    files = dict(rows_of(file, _COCO, record, lambda row: (int(row["id"]), str(row["file_name"])), "images"))

    def read(row: Mapping[str, Any]) -> tuple[int, str, bool]:
        image, category = int(row["image_id"]), int(row["category_id"])
        if image not in files:
            raise ValueError(f"is of image {image}, which is not in the file")
        if category not in names:
            raise ValueError(f"is of category {category}, which is not in the file")
        return image, names[category], bool(row.get("iscrowd", 0))

    counts: dict[int, Counter[str]] = {id_: Counter() for id_ in files}
    crowds: dict[int, set[str]] = {id_: set() for id_ in files}
    for image, category, crowd in rows_of(file, _COCO, record, read, "annotations"):
        if crowd:
            crowds[image].add(category)
        else:
            counts[image][category] += 1
    source = DecodedImages(files_of(files.values(), images, file), channels)
    return Objects(source, list(counts.values()), [frozenset(crowd) for crowd in crowds.values()], list(names.values()))


def counting_questions(objects: Objects, balanced: bool, seed: int) -> Questions:
    """How many there are of each category of which 1 to 9 are there.

    Args:
        objects: what is in the images.
        balanced: leave out so many questions, by chance, that of no category one count is asked for more often than all others
            together: most things are there once, and to say so is no counting. Categories that always come in one number go.
        seed: of that choice.

    Raises:
        ValueError: nothing is left to be asked.
    """
    rows = [
        (image, category, count)
        for image, counts in enumerate(objects.counts)
        for category, count in counts.items()
        if count <= MOST and category not in objects.uncounted[image]
    ]
    if balanced:
        rows = _without_surplus(rows, seed)
    asked = [(image, f"How many {plural(category)} are there in the image?", str(count)) for image, category, count in rows]
    return _questions(objects, asked, "counts differ; --balanced False asks for all of them")


def _without_surplus(rows: list[tuple[int, str, int]], seed: int) -> list[tuple[int, str, int]]:
    by_count: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, (_, category, count) in enumerate(rows):
        by_count[category][count].append(number)
    generator = np.random.default_rng(sample_seed(seed))
    kept: list[int] = []
    for numbers_of in by_count.values():
        total = sum(map(len, numbers_of.values()))
        for numbers in numbers_of.values():
            allowed = min(len(numbers), total - len(numbers))
            kept += generator.permutation(numbers)[:allowed].tolist()
    return [rows[number] for number in sorted(kept)]


def identification_questions(objects: Objects, balanced: bool, seed: int) -> Questions:
    """Whether something is there, for each category.

    Args:
        objects: what is in the images.
        balanced: ask for a category as often where it is as where it is not, in images chosen by chance, so that its name says
            nothing about the answer; else for every category in every image.
        seed: of that choice.

    Raises:
        ValueError: nothing is left to be asked.
    """
    generator = np.random.default_rng(sample_seed(seed))
    there = [set(counts) | crowds for counts, crowds in zip(objects.counts, objects.uncounted, strict=True)]
    rows: list[tuple[int, str, str]] = []
    for category in objects.categories:
        sides = {
            "yes": [image for image, found in enumerate(there) if category in found],
            "no": [image for image, found in enumerate(there) if category not in found],
        }
        allowed = min(map(len, sides.values())) if balanced else len(there)
        for answer, images in sides.items():
            chosen = generator.permutation(images)[:allowed].tolist()
            rows += [(int(image), f"Does {category} exist in the image?", answer) for image in chosen]
    return _questions(objects, sorted(rows), "are there images with it and without; --balanced False asks for all of them")


def _questions(objects: Objects, rows: list[tuple[int, str, str]], else_say: str) -> Questions:
    if not rows:
        raise ValueError(f"nothing is left to ask of {objects.images.name(0)} and the other images: of no category {else_say}")
    return Questions(
        images=objects.images,
        image_of=np.array([image for image, _, _ in rows]),
        texts=[text for _, text, _ in rows],
        answers=[(answer,) for _, _, answer in rows],
        kinds=[""] * len(rows),
    )


def plural(name: str) -> str:
    """A category's name for several of it: dogs, benches, people, wine glasses."""
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    if name.endswith(_ALIKE):
        return name
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")
