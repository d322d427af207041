"""COCO's annotations as labels of pixels, against shapes that are known."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evomask.data.coco_masks import CocoMasks
from evomask.data.image_masks import IGNORED

pytest.importorskip("pycocotools")


def square(left: int, top: int, side: int) -> list[list[float]]:
    return [[left, top, left + side, top, left + side, top + side, left, top + side]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.png", "empty.png"):
        Image.fromarray(np.full((20, 30, 3), 7, np.uint8)).save(tmp_path / name)
    # Column by column, as COCO counts: 400 pixels (20 columns) of nothing, 100 (5 columns) of a crowd, 100 of nothing.
    crowd = {"counts": [400, 100, 100], "size": [20, 30]}
    record = {
        "images": [
            {"id": number, "file_name": name, "height": 20, "width": 30}
            for number, name in ((3, "a.png"), (7, "b.png"), (9, "empty.png"))
        ],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"image_id": 3, "segmentation": square(2, 4, 6), "bbox": [2, 4, 6, 6], "iscrowd": 0},
            {"image_id": 3, "segmentation": square(0, 0, 12), "bbox": [0, 0, 12, 12], "iscrowd": 0},
            {"image_id": 7, "segmentation": crowd, "bbox": [20, 0, 5, 20], "iscrowd": 1},
            {"image_id": 7, "segmentation": square(1, 1, 2), "bbox": [1, 1, 2, 2], "iscrowd": 0},
        ],
    }
    for number, annotation in enumerate(record["annotations"]):
        annotation |= {"id": number, "category_id": 1}
    (tmp_path / "instances.json").write_text(json.dumps(record))
    return tmp_path


def test_smaller_objects_lie_on_larger_ones_and_crowds_are_ignored(folder: Path) -> None:
    source = CocoMasks(folder, folder / "instances.json")
    assert len(source) == 2, "of the third image nothing is said"
    assert source.image(0).shape == (3, 20, 30)
    expected = np.zeros((20, 30), int)
    expected[:12, :12] = 2
    expected[4:10, 2:8] = 1
    assert source.mask(0).tolist() == expected.tolist()
    expected = np.zeros((20, 30), int)
    expected[:, 20:25] = IGNORED
    expected[1:3, 1:3] = 2
    assert source.mask(1).tolist() == expected.tolist()


def test_what_cannot_be_used_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="no folder"):
        CocoMasks(folder / "gone", folder / "instances.json")
    with pytest.raises(ValueError, match=r"no file .*gone\.json"):
        CocoMasks(folder, folder / "gone.json")
    (folder / "other.json").write_text('{"questions": []}')
    with pytest.raises(ValueError, match="no COCO json file of annotations"):
        CocoMasks(folder, folder / "other.json")
    Image.new("RGB", (5, 5)).save(folder / "b.png")
    with pytest.raises(ValueError, match=r"b\.png cannot be read: it is of 5 x 5 px"):
        CocoMasks(folder, folder / "instances.json").image(1)
    (folder / "a.png").unlink()
    with pytest.raises(ValueError, match=r"1 of the 3 images .* there is no a\.png"):
        CocoMasks(folder, folder / "instances.json")


def test_the_real_set(shared_data: Path) -> None:
    source = CocoMasks(shared_data / "coco/val2017", shared_data / "coco/annotations/instances_val2017.json")
    for index in range(0, len(source), 10):
        assert source.mask(index).shape == source.image(index).shape[1:]
        assert source.mask(index).max() > 0
