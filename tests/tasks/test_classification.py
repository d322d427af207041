"""Metrics of classifiers against cases worked by hand and scikit-learn, and the log of validations."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from evomask.engine.loop import Moment
from evomask.tasks.classification import Predictions
from evomask.tasks.validation_log import ValidationLog, final_metrics


def test_metrics_of_four_images_by_hand() -> None:
    shares = torch.tensor([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]])
    metrics = Predictions(shares.log(), torch.tensor([0, 1, 2, 0])).metrics()
    assert metrics["top1"] == 50
    assert metrics["top5"] == 100  # there are but 3 classes
    assert metrics["majority"] == 50
    assert metrics["loss"] == pytest.approx(-(math.log(0.7) + math.log(0.3) + math.log(0.6) + math.log(0.1)) / 4, rel=1e-5)
    # 15 bins of confidence: 0.6 and 0.6 share one (one right of two), 0.7 (right) and 0.8 (wrong) have their own.
    assert metrics["calibration_error"] == pytest.approx(100 * (2 * abs(0.5 - 0.6) + abs(1 - 0.7) + abs(0 - 0.8)) / 4, abs=1e-3)


def test_top_k_and_confusion_equal_scikit_learn() -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    torch.manual_seed(0)
    logits, labels = torch.randn(200, 12), torch.randint(0, 12, (200,))
    predictions = Predictions(logits, labels, {"rate": 0.5})
    metrics = predictions.metrics()
    for k in (1, 5):
        expected = oracle.top_k_accuracy_score(labels, logits, k=k, labels=range(12))
        assert metrics[f"top{k}"] == pytest.approx(100 * expected, abs=1e-4)
    assert metrics["rate"] == 0.5
    assert predictions.confusion().tolist() == oracle.confusion_matrix(labels, logits.argmax(dim=1)).tolist()


def test_validation_is_logged_every_so_many_epochs_and_at_the_end(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    asked: list[bool] = []

    def predictions() -> Predictions:
        asked.append(model.training)
        return Predictions(torch.eye(3), torch.tensor([0, 1, 2]))

    log = ValidationLog(model, predictions, tmp_path, ["a", "b", "c"], epochs=5, every=2)
    for epoch in range(6):
        model.train()
        log(Moment(epoch, 10 * epoch, epoch / 5))
    rows = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"]) for row in rows] == [(2, 20), (4, 40), (5, 50)]
    assert asked == [False] * 3, "in evaluation mode"
    assert final_metrics(tmp_path)["top1"] == 100
    predictions_of_the_end, classes = Predictions.load(tmp_path / "predictions.safetensors")
    assert classes == ["a", "b", "c"]
    assert torch.equal(predictions_of_the_end.logits, torch.eye(3))

    log(Moment(4, 40, 0.8))  # a run that was killed after its last epoch goes on from before
    rows = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [2, 4]
