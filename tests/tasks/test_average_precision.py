"""AP against a case worked out by hand, and against pycocotools on COCO's images with made-up detections."""

import contextlib
import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evomask.data.coco import CocoImages
from evomask.data.rle import decode_mask, encode_masks
from evomask.tasks.average_precision import KINDS, average_precision

SIDE = 40


def square(left: int, top: int, side: int, **more: Any) -> dict[str, Any]:
    mask = torch.zeros(1, 100, 100, dtype=torch.bool)
    mask[:, top : top + side, left : left + side] = True
    box = {"bbox": [left, top, side, side], "segmentation": encode_masks(mask)[0]}
    return {"image_id": 1, "category_id": 7} | box | more


def truth_of(*objects: dict[str, Any]) -> dict[str, Any]:
    annotations = [
        {"id": number, "area": each["bbox"][2] * each["bbox"][3], "iscrowd": 0} | each
        for number, each in enumerate(objects, start=1)
    ]
    categories = [{"id": 7, "name": "car"}, {"id": 9, "name": "boat"}]
    return {"images": [{"id": 1, "height": 100, "width": 100}], "annotations": annotations, "categories": categories}


@pytest.mark.parametrize("kind", KINDS)
def test_two_objects_by_hand(kind: str) -> None:
    truth = truth_of(square(0, 0, SIDE), square(50, 50, SIDE))
    # The surest overlaps the first object by 30/40: right at overlaps up to 0.75. The second finds nothing, the third all of
    # the other object.
    found = [square(0, 0, SIDE, score=0.9), square(10, 55, SIDE, score=0.8), square(50, 50, SIDE, score=0.7)]
    found[0] |= {name: value for name, value in square(0, 0, SIDE).items() if name != "image_id"}
    found[0]["bbox"] = [0, 0, SIDE, 30]
    half = torch.zeros(1, 100, 100, dtype=torch.bool)
    half[:, :30, :SIDE] = True
    found[0]["segmentation"] = encode_masks(half)[0]
    metrics = average_precision(truth, found, kind).metrics()
    # At 0.5 to 0.75: precision 1 up to recall 0.5 (51 of 101 places), 2/3 beyond. At 0.8 to 0.95: 1/3 up to 0.5, then 0.
    low, high = (51 + 50 * 2 / 3) / 101, 51 / 3 / 101
    assert metrics["AP50"] == pytest.approx(100 * low, abs=1e-3)
    assert metrics["AP75"] == pytest.approx(100 * low, abs=1e-3)
    assert metrics["AP"] == pytest.approx(100 * (6 * low + 4 * high) / 10, abs=1e-3)
    assert metrics["AR"] == pytest.approx(100 * (6 * 1 + 4 * 0.5) / 10, abs=1e-3)
    assert "AP_small" not in metrics, "there is no small object"
    assert average_precision(truth, found, kind).by_class() == [metrics["AP"], None]


def test_what_is_found_in_a_crowd_counts_neither_for_nor_against() -> None:
    crowd = square(0, 0, 80, iscrowd=1)
    truth = truth_of(square(85, 85, 10), crowd)
    found = [square(10 * number, 10, 20, score=0.9) for number in range(5)] + [square(85, 85, 10, score=0.5)]
    for kind in KINDS:
        assert average_precision(truth, found, kind).metrics()["AP50"] == 100
        assert average_precision(truth_of(square(85, 85, 10)), found, kind).metrics()["AP50"] == pytest.approx(
            100 / 6, abs=1e-3
        )


def test_nothing_found_is_nothing() -> None:
    assert average_precision(truth_of(square(0, 0, SIDE)), [], "mask").metrics()["AP"] == 0


def made_up_detections(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each object up to three, shifted, some of another class, with scores of which many are equal."""
    rng = np.random.default_rng(0)
    size = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    ids = [category["id"] for category in truth["categories"]]
    found = []
    for each in truth["annotations"]:
        mask = decode_mask(each["segmentation"], size[each["image_id"]])
        for _ in range(rng.integers(0, 4)):
            shifted = torch.roll(mask, tuple(rng.integers(-4, 5, 2).tolist()), (0, 1))
            box = np.array(each["bbox"]) + rng.normal(0, 0.08, 4) * np.array(each["bbox"])[[2, 3, 2, 3]]
            category = each["category_id"] if rng.random() < 0.85 else int(rng.choice(ids))
            common = {"image_id": each["image_id"], "category_id": category, "score": round(rng.random(), 2)}
            found.append(common | {"bbox": box.tolist(), "segmentation": encode_masks(shifted.unsqueeze(0))[0]})
    return found


def test_it_is_that_of_pycocotools(shared_data: Path) -> None:
    oracle_of_files, oracle = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    coco = shared_data / "coco"
    truth = CocoImages(coco / "annotations/instances_val2017.json", coco / "val2017").truth()
    for number, each in enumerate(truth["annotations"]):
        each["iscrowd"] = int(number % 10 == 0)
    found = made_up_detections(truth)
    assert len(found) > 1000
    for kind, other in {"box": "segmentation", "mask": "bbox"}.items():
        mine = average_precision(truth, found, kind)
        with contextlib.redirect_stdout(io.StringIO()):
            known = oracle_of_files.COCO()
            known.dataset = copy.deepcopy(truth)
            known.createIndex()
            results = known.loadRes([{name: value for name, value in each.items() if name != other} for each in found])
            evaluation = oracle.COCOeval(known, results, KINDS[kind])
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        np.testing.assert_allclose(mine.precision, evaluation.eval["precision"], rtol=0, atol=1e-12)
        np.testing.assert_allclose(mine.recall, evaluation.eval["recall"], rtol=0, atol=1e-12)
        metrics = mine.metrics()
        names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
        assert [metrics[name] for name in names] == pytest.approx(100 * evaluation.stats[:6], abs=1e-3)
        assert metrics["AR"] == pytest.approx(100 * evaluation.stats[8], abs=1e-3)
