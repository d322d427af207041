"""What all classifiers are judged by: predictions over a labelled set, and their metrics."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from evomask.data.images import ImageSource
from evomask.data.labelled import LabelledImages
from evomask.engine.pretrain import normalise
from evomask.models.encoders import Encoder
from evomask.tasks.image_pass import for_all_images

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
        # Imported where it is used: it takes nearly two seconds, which pretraining and `--help` of a recipe need not wait for.
        from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

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
        from torchmetrics.functional.classification import multiclass_confusion_matrix

        return multiclass_confusion_matrix(self.logits, self.labels, self.logits.shape[1])

    def save(self, out: Path, classes: list[str]) -> None:
        """Write OUT/predictions.safetensors, with the names of the classes."""
        tensors = {"logits": self.logits, "labels": self.labels}
        save_file(tensors, out / PREDICTIONS, metadata={"classes": json.dumps(classes)})

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
        shown: how much of an image's shorter side is seen, see `LabelledImages`.
        batch_size: see `for_all_images`.
        workers: see there.
    """

    def compute(images_uint8: Tensor) -> Tensor:
        return logits_of(normalise(images_uint8, encoder.mean, encoder.std)).float()

    images = LabelledImages(source, encoder.image_size, shown)
    looks = {"device": device, "batch_size": batch_size, "workers": workers}
    return Predictions(*for_all_images(compute, images, "validation images", **looks))
