"""COCO's json: ids with gaps, crowds, polygons and run lengths; and what is wrong with a file, named or counted."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.data.coco import CocoImages
from evomask.data.decode import UnreadableImage

CATEGORIES = [{"id": 90, "name": "boat"}, {"id": 3, "name": "car"}, {"id": 7, "name": "fish"}]


def rectangle(left: float, top: float, width: float, height: float) -> dict[str, Any]:
    right, bottom = left + width, top + height
    corners = [left, top, right, top, right, bottom, left, bottom]
    return {"bbox": [left, top, width, height], "segmentation": [corners], "area": width * height, "iscrowd": 0}


def record() -> dict[str, Any]:
    """Two images of 20 x 10 px: one with a car of 6 x 4 px, a boat in run lengths and a crowd of fish, the other empty."""
    columns = np.zeros((20, 10), np.uint8)  # run lengths go down the columns
    columns[10:12, :5] = 1
    counts = [100, 5, 5, 5, 85]
    assert np.repeat([0, 1, 0, 1, 0], counts).tolist() == columns.ravel().tolist()
    boat = {"bbox": [10, 0, 2, 5], "segmentation": {"size": [10, 20], "counts": counts}, "area": 10, "iscrowd": 0}
    crowd = rectangle(0, 0, 3, 3) | {"iscrowd": 1}
    annotations = [rectangle(2, 3, 6, 4) | {"category_id": 3}, boat | {"category_id": 90}, crowd | {"category_id": 7}]
    images = [{"id": 500, "file_name": "a.png"}, {"id": 20, "file_name": "b.png"}]
    return {
        "images": [image | {"width": 20, "height": 10} for image in images],
        "categories": [dict(category) for category in CATEGORIES],
        "annotations": [{"id": number, "image_id": 500} | each for number, each in enumerate(annotations)],
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """The record as a file, after a change to it, and its images."""
    (tmp_path / "images").mkdir()
    for name in "ab":
        Image.new("RGB", (20, 10)).save(tmp_path / f"images/{name}.png")

    def write_changed(change: Callable[[dict[str, Any]], Any] = lambda _: None) -> tuple[Path, Path]:
        changed = record()
        change(changed)
        (tmp_path / "file.json").write_text(json.dumps(changed))
        return tmp_path / "file.json", tmp_path / "images"

    return write_changed


def test_objects_have_labels_without_gaps_and_ids_with_them(write: Callable[..., tuple[Path, Path]]) -> None:
    source = CocoImages(*write())
    assert source.classes == ["car", "fish", "boat"]
    assert [source.category_id(label) for label in (1, 2, 3)] == [3, 7, 90]
    assert [source.image_id(index) for index in range(len(source))] == [500, 20]
    found = source.instances(0)
    assert found.labels.tolist() == [1, 3], "a crowd is not learnt from"
    assert found.boxes.tolist() == [[2, 3, 8, 7], [10, 0, 12, 5]]
    car, boat = torch.zeros(2, 10, 20, dtype=torch.bool)
    car[3:7, 2:8] = True
    boat[:5, 10:12] = True
    assert torch.equal(found.masks, torch.stack((car, boat)))
    assert source.instances(1).masks.shape == (0, 10, 20)
    assert source.image(0).shape == (3, 10, 20)
    assert source.label(0) is None


def test_categories_of_one_name_are_told_apart(write: Callable[..., tuple[Path, Path]]) -> None:
    source = CocoImages(*write(lambda record: record["categories"][0].update(name="car")))
    assert source.classes == ["car (3)", "fish", "car (90)"]


def test_the_truth_is_what_the_file_says_with_ids_from_1(write: Callable[..., tuple[Path, Path]]) -> None:
    said, truth = record(), CocoImages(*write()).truth()
    assert [each["id"] for each in truth["annotations"]] == [1, 2, 3], "0 would stand for no match"
    assert [each | {"id": each["id"] - 1} for each in truth["annotations"]] == said["annotations"]
    assert truth["categories"] == sorted(CATEGORIES, key=lambda each: each["id"])
    assert [image["id"] for image in truth["images"]] == [500, 20]


def test_images_without_objects_are_left_out_of_training_and_counted(
    write: Callable[..., tuple[Path, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        source = CocoImages(*write(), skip_empty=True)
    assert len(source) == 1
    assert "1 of 2 images have no object to learn from" in caplog.text
    assert source.name(0).endswith("a.png")
    only_crowds = write(lambda said: said.update(annotations=said["annotations"][2:]))
    with pytest.raises(ValueError, match="no object to learn from: all are crowds"):
        CocoImages(*only_crowds, skip_empty=True)
    assert len(CocoImages(*only_crowds)) == 2


def test_annotations_that_cannot_be_used_are_counted(
    write: Callable[..., tuple[Path, Path]], caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(said: dict[str, Any]) -> None:
        bad = [rectangle(4, 4, 0, 3), rectangle(4, 4, 3, -1), rectangle(25, 2, 3, 3)]
        bad += [rectangle(1, 1, 3, 3) | {"segmentation": each} for each in ([], [[1, 1, 4, 4]], None)]
        said["annotations"] += [each | {"id": 50 + n, "image_id": 20, "category_id": 3} for n, each in enumerate(bad)]
        said["annotations"].append(rectangle(16, 6, 9, 9) | {"id": 60, "image_id": 20, "category_id": 3})

    source = CocoImages(*write(spoil))
    assert "6 annotations are left out: 2 with a box of no area; 1 outside the image; 3 without an outline" in caplog.text
    assert source.instances(1).boxes.tolist() == [[16, 6, 20, 10]], "cut at the edges"
    assert len(source.truth()["annotations"]) == 4
    caplog.clear()
    CocoImages(*write(spoil))
    assert "6 annotations are left out" in caplog.text, "also where the index is there already"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["images"][1].update(id=500), "image 500 has an id that another one has"),
        (lambda r: r["annotations"][1].update(id=0), "annotation 0 has an id that another one has"),
        (lambda r: r["categories"].append({"id": 3, "name": "van"}), "category 3 has an id that another one has"),
        (lambda r: r["annotations"][2].update(category_id=5), "annotation 2 is of category 5, which is not in the file"),
        (lambda r: r["annotations"][2].update(image_id=1), "annotation 2 is of image 1, which is not in the file"),
        (lambda r: r["annotations"][2].update(bbox=[1, 2, 3]), "annotation 2 has a box that is not four numbers"),
        (lambda r: r["annotations"][2].pop("bbox"), "annotation 2 has no 'bbox'"),
        (lambda r: r["annotations"][2].pop("id"), "annotation number 3 has no 'id'"),
        (lambda r: r["annotations"][2].update(segmentation="x"), "annotation 2 .* neither polygons nor run lengths"),
        (lambda r: r["annotations"][1]["segmentation"].update(size=[20, 10]), "annotation 1 .* its image is of"),
        (lambda r: r["annotations"][1]["segmentation"].update(counts=[1, 2]), "annotation 1 .* do not add up"),
        (lambda r: r["annotations"][1]["segmentation"].update(counts="PPP"), "annotation 1 its run lengths are damaged"),
        (
            lambda r: r["annotations"][2].update(segmentation=[[1, 2, 3, 4, 5, float("nan")]]),
            "annotation 2 .* neither polygons",
        ),
        (lambda r: r["annotations"][2].update(image_id=2**63), "annotation 2 its image_id is no whole number"),
        (lambda r: r["images"][0].update(height=float("inf")), "image 500 its height is no whole number"),
        (lambda r: r["images"][0].pop("height"), "image 500 has no 'height'"),
        (lambda r: r["images"][0].update(height=0), "image 500 is of 20 x 0 px"),
        (lambda r: r["images"].append(3), "image number 3 is no object"),
        (lambda r: r.pop("categories"), "no COCO json file .* no list of categories"),
        (lambda r: r.update(annotations=[]), "no annotation that can be used: there is none at all"),
        (lambda r: r["images"][1].update(file_name="c.png"), "1 of the 2 images .* there is no c.png"),
        (lambda r: r["images"][1].update(file_name="sub/b.png"), "1 of the 2 images .* there is no sub/b.png"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(write: Callable[..., tuple[Path, Path]], change: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CocoImages(*write(change))


@pytest.mark.parametrize(
    ("text", "said"), [("{", "no COCO json file"), ("[]", "as a file of detections is"), ("3", "no list of")]
)
def test_what_is_no_such_file_is_refused(write: Callable[..., tuple[Path, Path]], text: str, said: str) -> None:
    file, images = write()
    file.write_text(text)
    with pytest.raises(ValueError, match=said):
        CocoImages(file, images)
    with pytest.raises(ValueError, match="there is no file"):
        CocoImages(file.with_name("other.json"), images)


def test_an_image_of_another_size_is_named(write: Callable[..., tuple[Path, Path]]) -> None:
    file, images = write()
    Image.new("RGB", (10, 20)).save(images / "b.png")
    source = CocoImages(file, images)
    with pytest.raises(UnreadableImage, match="it is of 10 x 20 px, and its annotations are for 20 x 10 px"):
        source.image(1)
    with pytest.raises(ValueError, match="there is no folder"):
        CocoImages(file, images / "sub")


def test_the_public_files_are_read_whole(shared_data: Path) -> None:
    coco = shared_data / "coco"
    said = json.loads((coco / "annotations/instances_train2017.json").read_text())
    source = CocoImages(coco / "annotations/instances_train2017.json", coco / "train2017")
    assert (len(source), len(source.classes)) == (100, 80)
    truth = source.truth()
    assert len(truth["annotations"]) == len(said["annotations"]) == 745
    by_id = {
        image["id"]: sorted(a["bbox"] for a in said["annotations"] if a["image_id"] == image["id"]) for image in said["images"]
    }
    for image in truth["images"]:
        assert sorted(a["bbox"] for a in truth["annotations"] if a["image_id"] == image["id"]) == by_id[image["id"]]
    found = source.instances(0)
    assert source.classes[int(found.labels[0]) - 1] == next(c["name"] for c in said["categories"] if c["id"] == 51)
    assert found.masks.shape[-2:] == source.image(0).shape[-2:]
