"""Validation while a task trains: a row of a log for each time, and what was predicted at the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from torch import nn

from evomask.engine import distributed
from evomask.engine.loop import Moment
from evomask.engine.run import write_atomically


class Judged(Protocol):
    """What a model has predicted for all validation images, together with what it is judged by."""

    def metrics(self) -> dict[str, float]:
        """By name; the first process alone calls it."""
        ...

    def save(self, out: Path, classes: list[str]) -> None:
        """Write the predictions into the folder of the evaluation, where pictures are made of them."""
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
        predictions: Callable[[], Judged],
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
            predictions.save(self._out, self._classes)


def final_metrics(out: Path) -> dict[str, float]:
    """The last row of OUT/validation.jsonl."""
    last = distributed.from_first(lambda: json.loads((out / "validation.jsonl").read_text().splitlines()[-1]))
    return {name: value for name, value in last.items() if name not in ("epoch", "step")}
