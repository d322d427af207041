"""Which images retrieval is tested on, and which it may learn from before."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from evomask.data.decode import check_channels
from evomask.data.images import DecodedImages, ImageSource
from evomask.data.labelled_files import ImageFiles, read_labels
from evomask.data.landmarks import Landmarks, is_landmark_list
from evomask.data.layouts import open_images
from evomask.data.retrieval_sets import RetrievalSet, labelled_pair, revisited, scene_instances
from evomask.data.sampler import sample_seed
from evomask.models.encoders import Encoder

Row = tuple[Path, str]


@dataclass(frozen=True, kw_only=True)
class RetrievalDataConfig:
    """Queries, a gallery, and images to learn from. Where nothing is named, the objects of the embedded scenes.

    Attributes:
        revisited: gnd_roxford5k.pkl or gnd_rparis6k.pkl, the ground truth of revisited Oxford or Paris.
        images: the folder with its .jpg files. None: the folder `jpg` beside it.
        labels: a csv with a column `file`, whose paths begin at its folder, and one with labels.
        label_column: the column with the labels, of this csv and of one to learn from. None: the first one beside `file`.
        queries: the folder of those files that are queries. None: the folder `query` beside the csv.
        gallery: the folder of those that are searched. None: the folder `gallery` beside the csv.
        half: of a csv: test on all labels, or on this half of them, shuffled once and for all; the other half is to learn from.
        instances: of the scenes: how many objects are searched for.
        views: of the scenes: images of each; one is the query.
        finetune: whether the encoder first learns to describe images, of other things than those it is tested on.
        train: what it learns from: train_clean.csv or train.csv of Google Landmarks v2; another csv such as `labels`; or a
            folder with a sub-folder for each class, or labelled shards. None: the other half of the csv, other objects of the
            scenes.
        workers: processes that load images.
    """

    revisited: Path | None = None
    images: Path | None = None
    labels: Path | None = None
    label_column: str | None = None
    queries: Path | None = None
    gallery: Path | None = None
    half: Literal["all", "first", "second"] = "all"
    instances: int = 100
    views: int = 6
    finetune: bool = False
    train: Path | None = None
    workers: int = 2

    def __post_init__(self):
        if self.revisited is not None and self.labels is not None:
            raise ValueError("give either --revisited or --labels")
        if self.revisited is None and self.images is not None:
            raise ValueError("--images are those of --revisited: give that, too")
        if self.labels is None and (self.queries or self.gallery or self.half != "all"):
            raise ValueError("--queries, --gallery and --half are about the files of a csv: give --labels, too")
        if self.label_column and self.labels is None and (self.train is None or self.train.suffix != ".csv"):
            raise ValueError("--label-column is about a csv: give --labels, or one to --train on")
        if self.train is not None and not self.finetune:
            raise ValueError("--train is learnt from where --finetune True says so: add that, or leave --train out")
        if self.finetune and self.train is None and (self.revisited is not None or (self.labels and self.half == "all")):
            half = ", or test on one --half of the labels and learn from the other" if self.labels else ""
            raise ValueError(f"--finetune needs images to learn from: name them with --train{half}")

    def sources(self, encoder: Encoder) -> tuple[RetrievalSet, ImageSource | None]:
        """What is tested on, and what is learnt from before, if anything.

        Raises:
            ValueError: files that are missing or hold something else, or a query for which there is nothing to find.
        """
        channels = encoder.in_chans
        learnt: ImageSource | None = None
        check_channels(channels)
        if self.revisited is not None:
            tested = revisited(self.revisited, self.images or self.revisited.parent / "jpg", channels)
        elif self.labels is not None:
            chosen = read_labels(self.labels, self.label_column)
            if self.half != "all":
                first, second = _halves(chosen)
                chosen, others = (first, second) if self.half == "first" else (second, first)
                learnt = _labelled_files(others, self.labels, channels)
            tested = labelled_pair(
                self._below(self.queries or self.labels.parent / "query", chosen, channels),
                self._below(self.gallery or self.labels.parent / "gallery", chosen, channels),
            )
        else:
            tested, learnt = scene_instances(encoder.image_size, self.instances, self.views, seed=0, channels=channels)
        if not self.finetune:
            return tested, None
        return tested, learnt if self.train is None else _open_labelled(self.train, self.label_column, channels)

    def _below(self, folder: Path, rows: Sequence[Row], channels: int) -> ImageSource:
        above = os.path.abspath(folder)
        inside = [row for row in rows if Path(os.path.abspath(row[0])).is_relative_to(above)]
        assert self.labels is not None
        if not inside:
            raise ValueError(f"{self.labels} names no file in {folder}: --queries and --gallery say where they lie")
        return _labelled_files(inside, self.labels, channels)


def _labelled_files(rows: Sequence[Row], named_by: Path, channels: int) -> ImageSource:
    paths, labels = zip(*rows, strict=True)
    return DecodedImages(ImageFiles(paths, labels, str(named_by)), channels)


def _halves(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of the one half of the labels, and those of the other, whatever the order of the rows."""
    labels = sorted({label for _, label in rows})
    if len(labels) < 2:
        raise ValueError("there is but one label: no two halves can be made of it")
    first = set(np.random.default_rng(sample_seed(0)).permutation(labels)[: len(labels) // 2].tolist())
    return [row for row in rows if row[1] in first], [row for row in rows if row[1] not in first]


def _open_labelled(path: Path, label_column: str | None, channels: int) -> ImageSource:
    if path.suffix != ".csv":
        return open_images(path, channels)
    if is_landmark_list(path):
        return DecodedImages(Landmarks(path), channels)
    return _labelled_files(read_labels(path, label_column), path, channels)
