"""What retrieval is tested on: queries, the images that are searched, and which of these are right for which query."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from evomask.data.images import Chosen, DecodedImages, ImageSource
from evomask.data.labelled_files import ImageFiles
from evomask.data.revisited import Box, GroundTruth, read_ground_truth
from evomask.data.scenes import SceneInstances

Numbers = NDArray[np.int64]
Verdict = Literal["right", "wrong", "junk"]


@dataclass(frozen=True)
class Relevant:
    """What is right for one query. Images that are in neither are wrong.

    Attributes:
        positives: numbers of images of the gallery.
        junk: those that are passed over as if they were not there.
    """

    positives: Numbers
    junk: Numbers

    def verdict(self, index: int) -> Verdict:
        """What an image of the gallery is for this query."""
        return "right" if index in self.positives else "junk" if index in self.junk else "wrong"


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and a gallery.

    Attributes:
        queries: the images that are searched for.
        gallery: the images that are searched.
        boxes: the part of each query's image that is the query; None: all of it.
        protocols: by name, what is right for each query. Where there is but one, its name is empty.
        shown: the protocol that pictures go by.
    """

    queries: ImageSource
    gallery: ImageSource
    boxes: list[Box] | None
    protocols: dict[str, list[Relevant]]
    shown: str


def revisited(ground_truth: Path, images: Path, channels: int = 3) -> RetrievalSet:
    """Revisited Oxford or Paris, with its three protocols.

    Args:
        ground_truth: `gnd_roxford5k.pkl` or `gnd_rparis6k.pkl`.
        images: the folder with the JPEG files, `all_souls_000013.jpg` and so on.
        channels: of an image.

    Raises:
        ValueError: files that are missing or hold something else.
    """
    truth = read_ground_truth(ground_truth)
    if not images.is_dir():
        raise ValueError(f"there is no folder {images}: --images names the folder with the .jpg files")
    queries, gallery = (
        DecodedImages(ImageFiles([images / f"{name}.jpg" for name in names], named_by=str(ground_truth)), channels)
        for names in (truth.queries, truth.database)
    )
    return RetrievalSet(queries, gallery, truth.boxes, revisited_protocols(truth), "medium")


def revisited_protocols(truth: GroundTruth) -> dict[str, list[Relevant]]:
    """What is right and what is passed over in `easy`, `medium` and `hard`."""
    levels = list(zip(truth.easy, truth.hard, truth.junk, strict=True))
    return {
        "easy": [_relevant(easy, junk + hard) for easy, hard, junk in levels],
        "medium": [_relevant(easy + hard, junk) for easy, hard, junk in levels],
        "hard": [_relevant(hard, junk + easy) for easy, hard, junk in levels],
    }


def labelled_pair(queries: ImageSource, gallery: ImageSource) -> RetrievalSet:
    """Two sets of images with labels: right is what has the query's label.

    Raises:
        ValueError: a query has no image of its label in the gallery.
    """
    members: dict[str, list[int]] = {}
    for index in range(len(gallery)):
        members.setdefault(_label(gallery, index), []).append(index)
    relevant = []
    for index in range(len(queries)):
        label = _label(queries, index)
        if label not in members:
            raise ValueError(
                f"the query {queries.name(index)} has no image of its label {label!r} in the gallery: add one, or leave it out"
            )
        relevant.append(_relevant(members[label], []))
    return RetrievalSet(queries, gallery, None, {"": relevant}, "")


def scene_instances(
    size: tuple[int, int], instances: int, views: int, seed: int, channels: int = 3
) -> tuple[RetrievalSet, ImageSource]:
    """Of the embedded objects, one view each as the query and the others as the gallery; and other objects to learn from.

    Args:
        size: height and width in pixels.
        instances: how many objects there are to find, and as many to learn from.
        views: images of each, at least 2.
        seed: another seed is other objects.
        channels: of an image.

    Raises:
        ValueError: a size or a number that cannot be.
    """
    if instances < 1 or views < 2:
        raise ValueError(f"it takes at least one object and two views of each, not {instances} and {views}")
    tested, learnt = (SceneInstances(size, instances, views, each, channels) for each in (2 * seed, 2 * seed + 1))
    first = [index for index in range(len(tested)) if index % views == 0]
    rest = [index for index in range(len(tested)) if index % views]
    return labelled_pair(Chosen(tested, first), Chosen(tested, rest)), learnt


def _label(source: ImageSource, index: int) -> str:
    label = source.label(index)
    assert label is not None, "both sets have labels"
    return source.classes[label]


def _relevant(positives: Sequence[int], junk: Sequence[int]) -> Relevant:
    return Relevant(np.array(positives, np.int64), np.array(junk, np.int64))
