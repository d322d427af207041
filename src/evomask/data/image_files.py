"""Images that a file of annotations speaks of: by the path in their folder, or by the number at the end of their names."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from evomask.data.images import SUFFIXES
from evomask.data.labelled_files import ImageFiles

_NUMBER = re.compile(r"(\d+)$")


def files_of(ids: Iterable[int | str], folder: Path, asked_by: Path) -> ImageFiles:
    """The file of each image in the folder, in their order.

    A number is the one at the end of a file's name: 42 is 42.png, 000000000042.jpg and COCO_val2014_000000000042.jpg. A text is
    the path itself.

    Args:
        ids: as the file of annotations has them.
        folder: of images.
        asked_by: the file of annotations, to be named where images are missing.

    Raises:
        ValueError: there is no such folder, an image is missing, or a number belongs to two files.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}: give the folder of the images that {asked_by} speaks of")
    ids = list(ids)
    by_number = _by_number(folder, asked_by) if any(isinstance(id_, int) for id_ in ids) else {}
    found = [by_number.get(id_) if isinstance(id_, int) else id_ if (folder / id_).is_file() else None for id_ in ids]
    missing = [id_ for id_, name in zip(ids, found, strict=True) if name is None]
    if missing:
        raise ValueError(f"{len(missing)} of {len(ids)} images of {asked_by} are not in {folder}: {missing[0]} for one")
    return ImageFiles([folder / name for name in found if name is not None], named_by=str(asked_by))


def _by_number(folder: Path, asked_by: Path) -> dict[int, str]:
    found: dict[int, str] = {}
    for name in os.listdir(folder):
        stem, suffix = os.path.splitext(name)
        number = _NUMBER.search(stem)
        if suffix.lower() not in SUFFIXES or number is None:
            continue
        other = found.setdefault(int(number[1]), name)
        if other != name:
            both = " and ".join(sorted((other, name)))
            raise ValueError(f"{folder} has two images of one number, {both}: give a folder with those of {asked_by} alone")
    return found
