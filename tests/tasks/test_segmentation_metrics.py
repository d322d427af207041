"""mIoU, aAcc and mAcc against a case worked out by hand and against torchmetrics, with ignored pixels and absent classes."""

import csv
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from evomask.data.image_masks import IGNORED
from evomask.tasks.segmentation_metrics import ClassScores, Example, Segmentations, confusion_of

LABELS = torch.tensor([[0, 0, 0, 1], [1, 1, IGNORED, 3], [IGNORED, 3, 3, 3]])
PREDICTED = torch.tensor([[0, 0, 1, 1], [1, 2, 0, 3], [3, 3, 0, 3]])
"""Of 4 classes. Class 2 is in no label, yet one pixel is taken for it."""


def test_a_case_by_hand() -> None:
    confusion = confusion_of(PREDICTED, LABELS, 4)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0], [1, 0, 0, 3]]
    scores = ClassScores.of(confusion)
    # IoU: 2 of 3 + 3 - 2, 2 of 3 + 3 - 2, 0 of 1, 3 of 4 + 3 - 3; accuracy: 2 of 3, 2 of 3, none, 3 of 4
    assert scores.iou.tolist() == [2 / 4, 2 / 4, 0, 3 / 4]
    assert scores.accuracy[[0, 1, 3]].tolist() == [2 / 3, 2 / 3, 3 / 4] and scores.accuracy[2].isnan()
    expected = {"mIoU": 100 * (0.5 + 0.5 + 0 + 0.75) / 4, "aAcc": 70.0, "mAcc": 100 * (2 / 3 + 2 / 3 + 0.75) / 3}
    assert scores.metrics() == pytest.approx(expected, abs=1e-4)


def test_a_class_that_is_nowhere_is_left_out_of_the_means() -> None:
    scores = ClassScores.of(torch.nn.functional.pad(confusion_of(PREDICTED, LABELS, 4), (0, 1, 0, 1)))
    assert scores.iou[4].isnan() and scores.accuracy[4].isnan()
    assert scores.metrics() == ClassScores.of(confusion_of(PREDICTED, LABELS, 4)).metrics()
    assert scores.by_class(["a", "b", "c", "d", "e"])["IoU of e"] is None


def test_totals_over_a_data_set_are_those_of_torchmetrics() -> None:
    generator = torch.Generator().manual_seed(0)
    classes, total, everything = 7, torch.zeros(7, 7, dtype=torch.long), []
    for size in ((5, 9), (16, 3), (11, 11)):
        labels = torch.randint(-1, classes - 1, size, generator=generator)  # the last class is in no label
        predicted = torch.randint(0, classes - 1, size, generator=generator)
        total += confusion_of(predicted, labels, classes)
        everything.append(torch.stack((predicted, labels)).flatten(1))
    predicted, labels = torch.cat(everything, dim=1)
    assert total.equal(multiclass_confusion_matrix(predicted, labels, classes, ignore_index=IGNORED))
    per_class = multiclass_jaccard_index(predicted, labels, classes, average=None, ignore_index=IGNORED)
    torch.testing.assert_close(ClassScores.of(total).iou[:6].float(), per_class[:6])


def test_the_table_has_a_row_a_class(tmp_path: Path) -> None:
    text = ClassScores.of(confusion_of(PREDICTED, LABELS, 4)).table(["sky, air", "road", "sea", "tree"])
    assert list(csv.reader(text.splitlines())) == [
        ["class", "IoU", "accuracy", "share of pixels"],
        ["sky, air", "50.00", "66.67", "30.00"],
        ["road", "50.00", "66.67", "30.00"],
        ["sea", "0.00", "", "0.00"],
        ["tree", "75.00", "75.00", "40.00"],
    ]


def test_what_is_saved_is_found_again(tmp_path: Path) -> None:
    example = Example(torch.zeros(3, 3, 4, dtype=torch.uint8), LABELS, PREDICTED)
    Segmentations(confusion_of(PREDICTED, LABELS, 4), lambda: [example]).save(tmp_path, list("abcd"))
    found, classes = Segmentations.load(tmp_path / "predictions.safetensors")
    assert classes == list("abcd")
    assert found.confusion.equal(confusion_of(PREDICTED, LABELS, 4))
    assert found.examples()[0].labels.equal(LABELS)
