"""How images are stored is told from what lies there: a folder of images, parquet shards, or tar shards."""

import glob
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from evomask.data.decode import check_channels
from evomask.data.image_folder import ImageFolder, holds_images, is_image
from evomask.data.images import DecodedImages, EncodedImages
from evomask.data.parquet_shards import ParquetShards
from evomask.data.shards import check_one_split
from evomask.data.tar_shards import TarShards

SHARDS: dict[str, Callable[[Sequence[str], str], EncodedImages]] = {".parquet": ParquetShards, ".tar": TarShards}
"""By the ending of a file. Another kind of shards is a line here."""

COMPRESSED = (".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_images(root: str | Path, channels: int = 3) -> DecodedImages:
    """The images that a path names.

    Args:
        root: a folder of images, flat or in sub-folders; a folder with parquet or tar files in it; one such file; or a pattern
            that names such files, `data/train-*.parquet`.
        channels: 1 grey, 3 RGB, 4 RGBA.

    Raises:
        ValueError: there is nothing of that name, nothing in it that can be read, or several kinds of things.
    """
    check_channels(channels)
    return DecodedImages(open_encoded(root), channels)


def open_encoded(root: str | Path) -> EncodedImages:
    """The same images, as they are stored: to write them in another layout, for example."""
    root = Path(root)
    if root.is_dir():
        names = [entry.name for entry in os.scandir(root)]
        shards = [name for name in names if _is_shard(name)]
        if not shards:
            return ImageFolder(root)
        if any(map(is_image, names)) or holds_images(root):
            raise ValueError(f"{root} holds both images and {min(shards)}: give a folder with one or the other")
        above = os.path.realpath(root)
        return _open_shards([os.path.join(above, name) for name in sorted(shards)], above, root)
    if root.exists():
        if not _is_shard(root.name):
            raise ValueError(f"{root} is a file: give the folder that holds your images, or a .parquet or .tar file")
        return _open_shards([os.path.abspath(root)], os.path.abspath(root), root)
    files = sorted(path for path in glob.glob(os.path.abspath(root)) if _is_shard(os.path.basename(path)))
    if not files:
        what = ".parquet or .tar file like" if glob.has_magic(str(root)) else "folder"
        raise ValueError(f"there is no {what} {root}: give the folder that holds your images")
    return _open_shards(files, os.path.abspath(root), root)


def _is_shard(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith((*SHARDS, *COMPRESSED))


def _open_shards(files: list[str], key: str, root: Path) -> EncodedImages:
    """Shards of one kind, in the order of their names."""
    for file in files:
        if file.lower().endswith(COMPRESSED):
            raise ValueError(f"{file} is compressed, so that no image in it can be read by itself: unpack it to a .tar file")
    endings = {os.path.splitext(file)[1].lower() for file in files}
    if len(endings) > 1:
        raise ValueError(f"{root} holds both parquet and tar files: give a folder, or a pattern, with one or the other")
    check_one_split(files, str(root))
    return SHARDS[endings.pop()](files, key)
