"""Pictures of a classifier's errors show the numbers that they are made of."""

import pytest
import torch

from evomask.figures.classification import calibration, confusion_matrix


def test_rows_of_the_confusion_matrix_are_shares_of_a_class() -> None:
    figure = confusion_matrix(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]), ["cat", "dog", "none"])
    ax = figure.axes[0]
    shown = ax.images[0].get_array()
    assert shown is not None
    assert shown.tolist() == [[0.75, 0.25, 0], [0, 1, 0], [0, 0, 0]]
    assert [text.get_text() for text in ax.texts] == ["75", "25", "", "", "100", "", "", "", ""]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog", "none"]


def test_many_classes_are_shown_without_names() -> None:
    assert not confusion_matrix(torch.eye(60).long(), [str(i) for i in range(60)]).axes[0].texts


def test_bars_of_the_calibration_are_accuracies_by_confidence() -> None:
    confidence = torch.tensor([0.55, 0.58, 0.95, 1.0])
    logits = torch.stack((confidence, 1 - confidence), dim=1).log().clamp(min=-50)
    above, below = calibration(logits, torch.tensor([0, 1, 0, 0]), bins=10).axes
    bars = {round(float(bar.get_x() + bar.get_width() / 2), 2): bar.get_height() for bar in above.patches}
    assert bars == pytest.approx({0.55: 0.5, 0.95: 1.0})
    assert [round(bar.get_height(), 2) for bar in below.patches] == [0, 0, 0, 0, 0, 0.5, 0, 0, 0, 0.5]
