"""A folder of images, flat or in classes."""

import os
from pathlib import Path

import numpy as np

from evomask.data.images import SUFFIXES, EncodedImages, read_file
from evomask.data.index import Index, Stamp, load_index, pack_names, stamp


class ImageFolder(EncodedImages):
    """All images below a folder, at any depth, in the order of their paths.

    Where every image lies in a sub-folder, the sub-folders just below `root` are the classes. Hidden files and folders are
    left out. A folder that is reached by a link is followed once.

    Args:
        root: the folder.

    Raises:
        ValueError: there is no image in it.
    """

    def __init__(self, root: Path):
        self.root = root
        index = load_index("folder", os.path.realpath(root), self._build)
        super().__init__(index, index.facts["classes"])

    def read(self, index: int) -> bytes:
        """The bytes of a file.

        Raises:
            UnreadableImage: it is gone, or may not be read.
        """
        return read_file(self.name(index))

    def name(self, index: int) -> str:
        """The file's path."""
        return os.path.join(self.root, self.index.name(index))

    def _build(self) -> Index:
        paths, stamps = _walk(os.path.realpath(self.root))
        if not paths:
            looked_for = " ".join(sorted(SUFFIXES))
            raise ValueError(
                f"there are no images in {self.root}: looked for files that end in {looked_for}, at any depth, "
                "and for parquet and tar files in the folder itself"
            )
        paths.sort()
        heads = [path.partition(os.sep)[0] for path in paths] if all(os.sep in path for path in paths) else []
        classes = sorted(set(heads))
        label_of = {name: label for label, name in enumerate(classes)}
        labels = np.array([label_of[head] for head in heads], np.int32) if heads else np.full(len(paths), -1, np.int32)
        return Index(pack_names(paths) | {"labels": labels}, {"classes": classes}, stamps)


def is_image(name: str) -> bool:
    """Whether a file of this name is taken for an image."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES


def holds_images(root: Path) -> bool:
    """Whether there is an image in a folder, at any depth; it stops at the first."""
    for _, folders, files in os.walk(root):
        if any(map(is_image, files)):
            return True
        folders[:] = [name for name in folders if not name.startswith(".")]
    return False


def _walk(root: str) -> tuple[list[str], list[Stamp]]:
    """Paths below root, relative to it; and the stamps of all folders. Links that lead back up are not followed."""
    found: list[str] = []
    stamps = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        above = os.path.relpath(folder, root)
        prefix = "" if above == os.curdir else above + os.sep
        found += (prefix + name for name in files if is_image(name))
        stamps.append(stamp(folder))
    return found, stamps
