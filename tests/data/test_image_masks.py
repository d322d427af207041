from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.data.image_masks import IGNORED, ImageMaskFolders, SceneMasks, WholeImages
from evomask.data.scenes import Scenes


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two images in a sub-folder with masks of the values 0, 3, 7 and 255; PNG with a palette and without."""
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images / "a", masks / "a"):
        folder.mkdir(parents=True)
    for number, mode in enumerate(("L", "P")):
        Image.new("RGB", (4, 2), (number, 0, 0)).save(images / "a" / f"{number}.bmp")
        mask = Image.fromarray(np.array([[0, 3, 7, 255], [number] * 4], np.uint8))
        if mode == "P":
            mask.putpalette([0] * 768)
        mask.save(masks / "a" / f"{number}.png")
    return images, masks


def test_masks_are_labels_and_ignored_values_say_so(folders: tuple[Path, Path]) -> None:
    source = ImageMaskFolders(*folders, ignored=(7, 255))
    assert len(source) == 2
    assert source.mask(0).tolist() == [[0, 3, IGNORED, IGNORED], [0, 0, 0, 0]]
    assert source.mask(1).tolist() == [[0, 3, IGNORED, IGNORED], [1, 1, 1, 1]]
    assert source.mask(1).dtype == torch.long
    assert source.image(1)[0].tolist() == [[1] * 4] * 2


def test_whole_images_come_with_their_masks_or_are_named(folders: tuple[Path, Path]) -> None:
    pairs = WholeImages(ImageMaskFolders(*folders, classes=list("abcdefgh"), ignored=(255,)))
    image, mask = pairs[0]
    assert len(pairs) == 2 and image.shape == (3, 2, 4)
    assert mask.tolist() == [[0, 3, 7, IGNORED], [0, 0, 0, 0]]
    (folders[0] / "a" / "1.bmp").write_text("no picture")
    with pytest.raises(ValueError, match=r"1\.bmp cannot be read"):
        pairs[1]


def test_no_value_is_ignored_unasked(folders: tuple[Path, Path]) -> None:
    assert ImageMaskFolders(*folders).mask(0)[0].tolist() == [0, 3, 7, 255]


def test_what_does_not_fit_is_named(folders: tuple[Path, Path]) -> None:
    images, masks = folders
    source = ImageMaskFolders(images, masks)
    Image.new("RGB", (4, 2)).save(masks / "a" / "0.png")
    with pytest.raises(ValueError, match=r"0\.png holds colours \(RGB\), not a label for each pixel"):
        source.mask(0)
    Image.new("L", (2, 4)).save(masks / "a" / "0.png")
    with pytest.raises(ValueError, match=r"0\.png is of 2 x 4 px, and its image of 4 x 2 px"):
        source.mask(0)
    (masks / "a" / "0.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"0\.png cannot be read"):
        source.mask(0)
    Image.effect_noise((400, 400), 50).save(masks / "a" / "0.png")  # large enough for several chunks of pixels
    content = (masks / "a" / "0.png").read_bytes()
    first, second, rest = content.split(b"IDAT", 2)
    (masks / "a" / "0.png").write_bytes(first + b"IDAT" + second + b"\0\1\2\3" + rest)
    with pytest.raises(ValueError, match=r"0\.png cannot be read: broken PNG file"):
        source.mask(0)
    (masks / "a" / "0.png").unlink()
    with pytest.raises(ValueError, match=r"1 of 2 images in .* have no mask: there is no .*0\.png"):
        ImageMaskFolders(images, masks)
    with pytest.raises(ValueError, match="give the folder that holds the masks"):
        ImageMaskFolders(images, masks / "gone")


def test_shards_are_no_images_with_masks(samples: list[Any], write_tar: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is of shards: images with masks are read from two folders of files"):
        ImageMaskFolders(write_tar(samples, tmp_path), tmp_path)


def test_scenes_have_objects_or_parts() -> None:
    scene = Scenes((48, 64), 3, split="val").scene(2)
    assert SceneMasks((48, 64), 3).mask(2).equal(scene.object_map)
    assert SceneMasks((48, 64), 3, parts=True).mask(2).equal(scene.part_map)
    assert SceneMasks((48, 64), 3).image(2).equal(scene.image)


def test_camvid(shared_data: Path) -> None:
    folder = shared_data / "camvid"
    source = ImageMaskFolders(folder / "images" / "val", folder / "annotations" / "val", ignored=(11,))
    assert len(source) == 101
    assert source.mask(0).shape == source.image(0).shape[1:] == (180, 240)
    assert set(source.mask(0).unique().tolist()) <= {IGNORED, *range(11)}
