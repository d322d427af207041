"""ADE20K as published, and lists of classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.data.image_masks import IGNORED, ImageMaskFolders, SceneCategories
from evomask.data.mask_layouts import open_ade20k, read_classes
from evomask.data.scene_drawing import CATEGORY_NAMES
from evomask.data.scenes import Scenes

HEADER = "Idx\tRatio\tTrain\tVal\tName\n"


@pytest.fixture
def ade20k(tmp_path: Path) -> Path:
    """One image whose mask has 0, the first, the last, and a class in between."""
    root = tmp_path / "ADEChallengeData2016"
    for folder in ("images/validation", "annotations/validation"):
        (root / folder).mkdir(parents=True)
    rows = "".join(f"{number}\t0.1\t10\t2\tthing {number}, object\n" for number in range(1, 151))
    (root / "objectInfo150.txt").write_text(HEADER + rows)
    Image.new("RGB", (2, 2)).save(root / "images/validation/ADE_val_00000001.jpg")
    Image.fromarray(np.array([[0, 1], [150, 13]], np.uint8)).save(root / "annotations/validation/ADE_val_00000001.png")
    return root


def test_zero_is_ignored_and_one_is_subtracted(ade20k: Path) -> None:
    source = open_ade20k(ade20k, "validation")
    assert source.mask(0).tolist() == [[IGNORED, 0], [149, 12]]
    assert len(source.classes) == 150
    assert source.classes[0] == "thing 1, object"


def test_what_is_not_as_published_is_named(ade20k: Path) -> None:
    with pytest.raises(ValueError, match="images/training: this part of ADE20K is missing"):
        open_ade20k(ade20k, "training")
    Image.fromarray(np.full((2, 2), 151, np.uint8)).save(ade20k / "annotations/validation/ADE_val_00000001.png")
    with pytest.raises(ValueError, match=r"has the value 151: the 150 classes are the values 1 to 150, and ignored are 0"):
        open_ade20k(ade20k, "validation").mask(0)
    (ade20k / "objectInfo150.txt").write_text(HEADER + "1 wall\n")
    with pytest.raises(ValueError, match="does not list the classes"):
        open_ade20k(ade20k, "validation")
    with pytest.raises(ValueError, match="ADE20K's folder is the one that holds it"):
        open_ade20k(ade20k / "images", "validation")


SEEN = {
    "ADE_val_00000001": {
        (100, 50): "sky",
        (408, 190): "building, edifice",  # the gable
        (408, 445): "grass",
        (40, 340): "tree",
        (200, 405): "wall",  # of field stones, before the house
    },
    "ADE_val_00000003": {
        (191, 20): "sky",
        (240, 220): "road, route",
        (100, 220): "sidewalk, pavement",
        (30, 160): "car, auto, automobile, machine, motorcar",
        (195, 132): "bus, autobus, coach, charabanc, double-decker, jitney, motorbus, motorcoach, omnibus, passenger vehicle",
    },
}
"""What a person sees at (x, y) of the photographs."""


def test_labels_are_what_a_person_sees(shared_data: Path) -> None:
    source = open_ade20k(shared_data / "ADEChallengeData2016", "validation")
    assert len(source) == 3 and len(source.classes) == 150
    masks = {Path(source.name(index)).stem: source.mask(index) for index in range(3)}
    found = {name: {place: source.classes[masks[name][place[1], place[0]]] for place in seen} for name, seen in SEEN.items()}
    assert found == SEEN
    assert masks["ADE_val_00000001"][0, 234] == masks["ADE_val_00000003"][0, 311] == IGNORED  # 0 in the files


def test_nothing_wraps_around_in_ade20k(shared_data: Path) -> None:
    source = open_ade20k(shared_data / "ADEChallengeData2016", "validation")
    for index in range(3):
        labels = source.mask(index)
        assert labels.shape == source.image(index).shape[1:]
        with Image.open(Path(source.name(index).replace("images", "annotations")).with_suffix(".png")) as raw:
            count = raw.histogram()
        assert int((labels == IGNORED).sum()) == count[0] > 0
        assert [int((labels == number).sum()) for number in range(150)] == count[1:151]
        assert labels.dtype == torch.long and labels.min() == IGNORED and labels.max() < 150


def test_a_value_without_a_class_is_named(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (2, 1)).save(tmp_path / "images/a.png")
    Image.fromarray(np.array([[1, 255]], np.uint8)).save(tmp_path / "masks/a.png")
    folders = tmp_path / "images", tmp_path / "masks"
    assert ImageMaskFolders(*folders, ignored=(255,), classes=["sky", "road"]).mask(0).tolist() == [[1, IGNORED]]
    with pytest.raises(
        ValueError, match=r"a\.png has the value 255: the 2 classes are the values 0 to 1, and ignored are none"
    ):
        ImageMaskFolders(*folders, classes=["sky", "road"]).mask(0)
    with pytest.raises(ValueError, match=r"has the value 1: the 1 classes are the values 0 to 0"):
        ImageMaskFolders(*folders, ignored=(255,), classes=["sky"]).mask(0)


def test_lists_of_classes(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text("sky\nroad\n\n")
    assert read_classes(path) == ["sky", "road"]
    for text, message in {
        "sky\n": "at least 2 classes, one a line, and names 1",
        "sky\n\nroad": "line 2 of .* is empty",
        "sky\nroad\nsky": "'sky' more than once",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_classes(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_classes(tmp_path / "gone.txt")


def test_scenes_have_categories() -> None:
    scene = Scenes((48, 64), 3).scene(1)
    source = SceneCategories((48, 64), 3)
    mask = source.mask(1)
    assert source.classes == ["background", *CATEGORY_NAMES]
    for number, category in enumerate(scene.categories.tolist()):
        assert set(mask[scene.instance_masks[number]].tolist()) == {1 + category}
    assert (mask[scene.object_map == 0] == 0).all()
    assert source.image(1).equal(scene.image)
