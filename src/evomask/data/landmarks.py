"""Google Landmarks v2, cleaned or not, as it is published: lists of images by landmark, and files three folders deep."""

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evomask.data.images import EncodedImages, read_file
from evomask.data.index import Index, load_index, pack_names, stamp

CLEAN = ("landmark_id", "images")
"""The head of train_clean.csv: a row is a landmark, with the names of its images between spaces."""
ALL = ("id", "url", "landmark_id")
"""The head of train.csv: a row is an image."""


class Landmarks(EncodedImages):
    """The images of GLDv2, labelled with their landmarks: 1.58 million of 81,313 in the clean set (Weyand et al., 2020).

    An image is the file `train/a/b/c/abc0123456789def.jpg` beside the list. Landmarks are numbered anew, in the order of their
    ids, as those of the clean set have gaps.

    Args:
        path: of `train_clean.csv`, or of `train.csv` for all images.

    Raises:
        ValueError: no such file, one with another head, or a row that cannot be understood.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        self.path = path
        self._folder = path.parent / "train"
        index = load_index("landmarks", os.path.realpath(path), self._build)
        super().__init__(index, index.facts["classes"])
        if not os.path.exists(self.name(0)):
            raise ValueError(f"{path} names {self.name(0)}, which is not there: the folder train must lie beside the list")

    def read(self, index: int) -> bytes:
        """The bytes of a file.

        Raises:
            UnreadableImage: it is not there, or may not be read.
        """
        return read_file(self.name(index))

    def name(self, index: int) -> str:
        """The file's path."""
        name = self.index.name(index)
        return os.path.join(self._folder, *name[:3], f"{name}.jpg")

    def _build(self) -> Index:
        list_stamp = stamp(os.path.realpath(self.path))
        names, landmarks = [], []
        for landmark, name in self._rows():
            if len(name) < 3 or "/" in name or not landmark.isdigit():
                raise ValueError(f"{self.path} has an image {name!r} of a landmark {landmark!r}, which cannot be")
            names.append(name)
            landmarks.append(int(landmark))
        if not names:
            raise ValueError(f"{self.path} names no image")
        ids, labels = np.unique(np.array(landmarks), return_inverse=True)
        facts = {"classes": [str(number) for number in ids.tolist()]}
        return Index(pack_names(names) | {"labels": labels.astype(np.int32)}, facts, [list_stamp])

    def _rows(self) -> Iterator[tuple[str, str]]:
        """Yield the landmark and the name of each image."""
        with self.path.open(newline="") as file:
            rows = csv.reader(file)
            head = tuple(next(rows, ()))
            if head not in (CLEAN, ALL):
                known = " or ".join(",".join(each) for each in (CLEAN, ALL))
                raise ValueError(f"{self.path} is no list of GLDv2: its first line must be {known}, not {','.join(head)!r}")
            for number, row in enumerate(rows, start=2):
                if len(row) != len(head):
                    raise ValueError(f"line {number} of {self.path} has {len(row)} values instead of {len(head)}")
                if head == CLEAN:
                    yield from ((row[0], name) for name in row[1].split())
                else:
                    yield row[2], row[0]


def is_landmark_list(path: Path) -> bool:
    """Whether a file is a list of GLDv2, by its first line."""
    if path.suffix != ".csv" or not path.is_file():
        return False
    with path.open(newline="") as file:
        return tuple(next(csv.reader(file), ())) in (CLEAN, ALL)
