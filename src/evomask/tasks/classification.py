"""What all classifiers are judged by: predictions over a labelled set, and their metrics."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_confusion_matrix,
)

from evomask.data.images import ImageSource
from evomask.engine import distributed
from evomask.engine.loop import Moment
from evomask.engine.pretrain import normalise
from evomask.engine.run import write_atomically
from evomask.models.encoders import Encoder
from evomask.tasks.labelled_pass import for_all_images

PREDICTIONS = "predictions.safetensors"
BINS = 15
"""Of confidence, over which calibration is measured (Guo et al., 2017)."""


@dataclass(frozen=True)
class Predictions:
    """What a classifier says.

    Attributes:
        logits: (n, classes) float32, on the CPU.
        labels: (n,) long.
        chosen: what else is to be reported beside the metrics, such as the learning rate that was best.
    """

    logits: Tensor
    labels: Tensor
    chosen: Mapping[str, float] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """`top1`, `top5` and expected `calibration_error` in percent, `loss`, and `majority`, naming the commonest class."""
        classes = self.logits.shape[1]
        accuracy = {
            f"top{k}": multiclass_accuracy(self.logits, self.labels, classes, average="micro", top_k=min(k, classes))
            for k in (1, 5)
        }
        calibration_error = multiclass_calibration_error(self.logits.softmax(dim=1), self.labels, classes, n_bins=BINS)
        metrics = {name: _percent(value) for name, value in accuracy.items()}
        metrics["calibration_error"] = _percent(calibration_error)
        metrics["loss"] = cross_entropy(self.logits, self.labels).item()
        metrics["majority"] = _percent(self.labels.bincount().max() / len(self.labels))
        return metrics | dict(self.chosen)

    def confusion(self) -> Tensor:
        """(classes, classes) long, row: label, column: prediction."""
        return multiclass_confusion_matrix(self.logits, self.labels, self.logits.shape[1])

    def save(self, path: Path, classes: list[str]) -> None:
        """Write a safetensors file, with the names of the classes."""
        save_file({"logits": self.logits, "labels": self.labels}, path, metadata={"classes": json.dumps(classes)})

    @classmethod
    def load(cls, path: Path) -> tuple["Predictions", list[str]]:
        """What `save` has written."""
        with safe_open(path, "pt") as file:
            return cls(file.get_tensor("logits"), file.get_tensor("labels")), json.loads(file.metadata()["classes"])


def _percent(share: Tensor) -> float:
    return round(100 * share.item(), 4)  # float32 has no more digits to offer


def predict(
    logits_of: Callable[[Tensor], Tensor],
    source: ImageSource,
    encoder: Encoder,
    *,
    device: torch.device,
    shown: float,
    batch_size: int,
    workers: int,
) -> Predictions:
    """Predictions for all images of a source.

    Args:
        logits_of: (B, C, H, W) normalised images -> (B, classes).
        source: images with labels.
        encoder: for the size of images and how they are normalised.
        device: see `for_all_images`.
        shown: see there.
        batch_size: see there.
        workers: see there.
    """

    def compute(images_uint8: Tensor) -> Tensor:
        return logits_of(normalise(images_uint8, encoder.mean, encoder.std))

    looks = {"device": device, "shown": shown, "batch_size": batch_size, "workers": workers}
    return Predictions(*for_all_images(compute, source, encoder, "validation images", **looks))


class Findings(Protocol):
    """What a validation has found."""

    def metrics(self) -> dict[str, float]:
        """By name."""
        ...

    def save(self, path: Path, classes: list[str]) -> None:
        """Write a safetensors file, with the names of the classes."""
        ...


class ValidationLog:
    """A hook that validates every so many epochs, and at the end; OUT/validation.jsonl has a row for each time.

    All processes predict, and the first writes down.

    Args:
        model: put in evaluation mode meanwhile.
        predictions: of the model as it is.
        out: the folder.
        classes: names of the classes.
        epochs: of training in all.
        every: epochs from one time to the next.
    """

    def __init__(
        self,
        model: nn.Module,
        predictions: Callable[[], Findings],
        out: Path,
        classes: list[str],
        epochs: int,
        every: int,
    ):
        self._model, self._predictions, self._out, self._classes = model, predictions, out, classes
        self._epochs, self._every = epochs, every

    def __call__(self, moment: Moment) -> None:
        """Validate, where it is time to."""
        is_end = moment.epoch == self._epochs
        if moment.epoch == 0 or (moment.epoch % self._every and not is_end):
            return
        self._model.eval()
        predictions = self._predictions()
        if distributed.rank() > 0:
            return
        path = self._out / "validation.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        # A run that was killed may have gone on for longer than its last checkpoint.
        rows = [row for row in rows if row["epoch"] < moment.epoch]
        rows.append({"epoch": moment.epoch, "step": moment.step} | predictions.metrics())
        write_atomically(path, "".join(json.dumps(row) + "\n" for row in rows))
        if is_end:
            predictions.save(self._out / PREDICTIONS, self._classes)


def final_metrics(out: Path) -> dict[str, float]:
    """The last row of OUT/validation.jsonl."""
    last = distributed.from_first(lambda: json.loads((out / "validation.jsonl").read_text().splitlines()[-1]))
    return {name: value for name, value in last.items() if name not in ("epoch", "step")}
