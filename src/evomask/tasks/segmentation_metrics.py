"""How well classes of pixels are named: counts over a whole data set, and what is made of them."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from evomask.data.image_masks import IGNORED
from evomask.tasks.classification import PREDICTIONS


def confusion_of(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(classes, classes) long, pixels by label (row) and by what they are taken for (column); IGNORED ones are left out.

    Args:
        predicted: (...) long, 0 to classes - 1.
        labels: (...) long, the same or IGNORED.
        classes: number of classes.
    """
    judged = labels != IGNORED
    pairs = labels[judged].long() * classes + predicted[judged].long()
    return pairs.bincount(minlength=classes**2).view(classes, classes)


@dataclass(frozen=True, eq=False)
class ClassScores:
    """What a confusion over a whole data set says of each class, (classes,) float64 from 0 to 1.

    Attributes:
        iou: pixels that are of the class and taken for it, over those that are either; NaN where there are none.
        accuracy: of the pixels of the class, those taken for it; NaN where there are none.
        pixels: of the class, long.
        overall: of all pixels, those whose class is right.
    """

    iou: Tensor
    accuracy: Tensor
    pixels: Tensor
    overall: float

    @classmethod
    def of(cls, confusion: Tensor) -> "ClassScores":
        """Of (classes, classes) counts, see `confusion_of`."""
        right, labels, predicted = confusion.diagonal().double(), confusion.sum(dim=1), confusion.sum(dim=0)
        overall = float(right.sum() / labels.sum())
        return cls(right / (labels + predicted - right), right / labels, labels, overall)

    def metrics(self) -> dict[str, float]:
        """`mIoU`, `aAcc` and `mAcc` in percent, as mmsegmentation has them.

        Means are over the classes that are in the labels or, for mIoU, that something is taken for.
        """
        means = {"mIoU": self.iou.nanmean(), "aAcc": torch.tensor(self.overall), "mAcc": self.accuracy.nanmean()}
        return {name: round(100 * float(value), 4) for name, value in means.items()}

    def by_class(self, classes: list[str]) -> dict[str, float | None]:
        """`IoU of CLASS` and `accuracy of CLASS` in percent; None where no pixel says it."""
        found: dict[str, float | None] = {}
        for title, values in (("IoU", self.iou), ("accuracy", self.accuracy)):
            for name, value in zip(classes, values.tolist(), strict=True):
                found[f"{title} of {name}"] = None if value != value else round(100 * value, 4)
        return found

    def table(self, classes: list[str]) -> str:
        """A CSV table: class, IoU, accuracy, share of the pixels, in percent."""
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["class", "IoU", "accuracy", "share of pixels"])
        share = self.pixels / self.pixels.sum().clamp(min=1)
        for name, *values in zip(classes, self.iou.tolist(), self.accuracy.tolist(), share.tolist(), strict=True):
            rows.writerow([name, *("" if value != value else f"{100 * value:.2f}" for value in values)])
        return text.getvalue()


@dataclass(frozen=True, eq=False)
class Example:
    """An image, what it shows and what is taken for it.

    Attributes:
        image: (C, H, W) uint8.
        labels: (H, W) long, IGNORED for pixels that are not judged.
        predicted: (H, W) long.
    """

    image: Tensor
    labels: Tensor
    predicted: Tensor


@dataclass(frozen=True, eq=False)
class Segmentations:
    """What a segmenter makes of a whole data set; `Judged` for the log.

    Attributes:
        confusion: (classes, classes) long, see `confusion_of`.
        examples: gives some images, to be looked at; called when they are to be saved.
    """

    confusion: Tensor
    examples: Callable[[], list[Example]]

    def metrics(self) -> dict[str, float]:
        """See `ClassScores`."""
        return ClassScores.of(self.confusion).metrics()

    def save(self, out: Path, classes: list[str]) -> None:
        """Write OUT/predictions.safetensors, with the names of the classes."""
        tensors = {"confusion": self.confusion}
        for number, example in enumerate(self.examples()):
            parts = {"image": example.image, "labels": example.labels, "predicted": example.predicted}
            tensors |= {f"{name}.{number}": part.contiguous() for name, part in parts.items()}
        save_file(tensors, out / PREDICTIONS, metadata={"classes": json.dumps(classes)})

    @classmethod
    def load(cls, path: Path) -> tuple["Segmentations", list[str]]:
        """What `save` has written."""
        with safe_open(path, "pt") as file:
            count = sum(name.startswith("image.") for name in file.keys())  # noqa: SIM118  # it is no dictionary
            examples = [
                Example(*(file.get_tensor(f"{name}.{number}") for name in ("image", "labels", "predicted")))
                for number in range(count)
            ]
            return cls(file.get_tensor("confusion"), lambda: examples), json.loads(file.metadata()["classes"])
