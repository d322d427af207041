"""A folder of images, flat or in classes, and what any source of images is."""

import os
from pathlib import Path
from typing import Protocol

from torch import Tensor

from evomask.data.decode import UnreadableImage, check_channels, decode

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


class ImageSource(Protocol):
    """Images by number. The numbers and their order never change while a source lives."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes, by label; empty where images have no labels."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size."""
        ...

    def label(self, index: int) -> int | None:
        """The class's number, None where images have no labels."""
        ...

    def name(self, index: int) -> str:
        """What to call it in a log: the path of a file."""
        ...


class ImageFolder:
    """All images below a folder, at any depth, in the order of their paths.

    Where every image lies in a sub-folder, the sub-folders just below `root` are the classes. Hidden files and folders are
    left out.

    Args:
        root: the folder.
        channels: 1 grey, 3 RGB, 4 RGBA.

    Raises:
        ValueError: no such folder, or no image in it.
    """

    def __init__(self, root: str | Path, channels: int = 3):
        check_channels(channels)
        self.root = Path(root)
        self._channels = channels
        if not self.root.exists():
            raise ValueError(f"there is no folder {self.root}: give the folder that holds your images")
        if not self.root.is_dir():
            raise ValueError(f"{self.root} is a file: give the folder that holds your images")
        self._paths = sorted(_find_images(self.root))
        if not self._paths:
            looked_for = " ".join(sorted(SUFFIXES))
            raise ValueError(f"there are no images in {self.root}: looked for files that end in {looked_for}, at any depth")
        in_classes = all(os.sep in path for path in self._paths)
        self.classes: list[str] = sorted({path.split(os.sep)[0] for path in self._paths}) if in_classes else []
        self._label_of = {name: label for label, name in enumerate(self.classes)}

    def __len__(self) -> int:
        """The number of files."""
        return len(self._paths)

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8, in its own size.

        Raises:
            UnreadableImage: the file is broken, or gone.
        """
        try:
            data = (self.root / self._paths[index]).read_bytes()
        except OSError as error:
            raise UnreadableImage(error.strerror or str(error)) from error
        return decode(data, self._channels)

    def label(self, index: int) -> int | None:
        """The number of the image's class, None for a flat folder."""
        return self._label_of[self._paths[index].split(os.sep)[0]] if self.classes else None

    def name(self, index: int) -> str:
        """The file's path."""
        return str(self.root / self._paths[index])


def _find_images(root: Path) -> list[str]:
    """Paths below root, relative to it. A link to a folder is followed once, also where it leads back up."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        images = (name for name in files if not name.startswith(".") and os.path.splitext(name)[1].lower() in SUFFIXES)
        found += (os.path.relpath(os.path.join(folder, name), root) for name in images)
    return found
