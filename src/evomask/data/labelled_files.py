"""Image files that a list names: with labels from a csv, or without."""

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evomask.data.images import EncodedImages, read_file
from evomask.data.index import Index, pack_names


class ImageFiles(EncodedImages):
    """Files in the order in which they are named.

    Args:
        paths: of the files.
        labels: the name of each one's class; none: they have no labels.
        named_by: what to say names them, where one is not there.

    Raises:
        ValueError: there is none, or some are not there.
    """

    def __init__(self, paths: Sequence[Path], labels: Sequence[str] | None = None, named_by: str = "a list"):
        if not paths:
            raise ValueError(f"{named_by} names no image")
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise ValueError(f"{named_by} names {len(missing)} files that are not there, {missing[0]} for one")
        classes = sorted(set(labels or ()))
        label_of = {name: number for number, name in enumerate(classes)}
        numbers = [label_of[label] for label in labels] if labels is not None else [-1] * len(paths)
        arrays = pack_names([os.fspath(path) for path in paths]) | {"labels": np.array(numbers, np.int32)}
        super().__init__(Index(arrays, {}, ()), classes)

    def read(self, index: int) -> bytes:
        """The bytes of a file.

        Raises:
            UnreadableImage: it is gone, or may not be read.
        """
        return read_file(self.name(index))

    def name(self, index: int) -> str:
        """The file's path."""
        return self.index.name(index)


def read_labels(path: Path, column: str | None = None) -> list[tuple[Path, str]]:
    """The file and the label of each row of a csv with a column `file`, whose paths begin at the csv's folder.

    Args:
        path: of the csv; its first line names the columns.
        column: that with the labels; None: the first one beside `file`.

    Raises:
        ValueError: no such file, no such column, or a row without file or label.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            columns = list(rows.fieldnames or ())
            others = [name for name in columns if name != "file"]
            if "file" not in columns or not others or (column is not None and column not in others):
                wanted = f"file and {column}" if column else "file and one with labels"
                raise ValueError(f"{path} needs the columns {wanted}: its first line is {','.join(columns)!r}")
            found = []
            for row in rows:
                name, label = row["file"], row[column or others[0]]
                if not name or not label:
                    raise ValueError(f"line {rows.line_num} of {path} has no file or no label")
                found.append((path.parent / name, label))
            return found
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no csv in UTF-8: {error}") from error
