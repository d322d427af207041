"""How data sets with a class for each pixel lie on a disk: ADE20K as published, and any two folders with a list of classes."""

from pathlib import Path

from evomask.data.image_masks import ImageMaskFolders

ADE20K_CLASSES = "objectInfo150.txt"


def open_ade20k(root: Path, split: str, channels: int = 3) -> ImageMaskFolders:
    """ADE20K as the scene parsing benchmark publishes it (Zhou et al., 2017): the folder ADEChallengeData2016.

    In its masks 0 is all else, which is not evaluated, and 1 to 150 are the classes: 0 is ignored, and 1 is subtracted.

    Args:
        root: with images/training, images/validation, the same of annotations, and objectInfo150.txt.
        split: "training" or "validation".
        channels: of an image.

    Raises:
        ValueError: something is not there, or is not as published.
    """
    names = root / ADE20K_CLASSES
    if not names.is_file():
        raise ValueError(f"there is no {names}: ADE20K's folder is the one that holds it, images and annotations")
    _, *rows = names.read_text().splitlines()  # Idx, Ratio, Train, Val, Name
    cells = [row.split("\t") for row in rows if row.strip()]
    if any(len(row) < 5 for row in cells) or [row[0].strip() for row in cells] != [str(1 + n) for n in range(len(cells))]:
        raise ValueError(f"{names} does not list the classes as ADE20K does: number, ratio, train, val and name, with tabs")
    classes = [row[4].strip() for row in cells]
    folders = root / "images" / split, root / "annotations" / split
    if not folders[0].is_dir():
        raise ValueError(f"there is no {folders[0]}: this part of ADE20K is missing")
    return ImageMaskFolders(*folders, ignored=(0,), channels=channels, classes=classes, first=1)


def read_classes(path: Path) -> list[str]:
    """The names of classes from a text file, a line each, that of value 0 first.

    Raises:
        ValueError: there is no such file, fewer than two names, or one of them twice.
    """
    try:
        names = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the list of classes {path} cannot be read: {error}") from error
    while names and not names[-1]:
        names.pop()
    if len(names) < 2:
        raise ValueError(f"{path} must name at least 2 classes, one a line, and names {len(names)}")
    if "" in names:
        raise ValueError(f"line {1 + names.index('')} of {path} is empty: each line names the class of one value, from 0 on")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise ValueError(f"{path} names {doubled[0]!r} more than once")
    return names
