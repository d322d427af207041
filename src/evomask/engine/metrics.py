"""What a run writes down while it trains: RUN/metrics.jsonl, one row a logged step, and the same for TensorBoard.

TensorBoard finds the rows of metrics.jsonl in RUN/tensorboard, those of another file NAME.jsonl in RUN/tensorboard/NAME: a
writer that goes on from a step makes it forget all that the same folder has of later ones.
"""

import json
import math
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from evomask.engine.run import write_atomically

METRICS = "metrics.jsonl"
MONITOR = "monitor.jsonl"
"""Rows of another kind, and rarer: what the model has learnt so far."""


class MetricsLog:
    """Appends rows to both files. Rows of steps that a resumed run does again are dropped first."""

    def __init__(self, run: Path, first_step: int, name: str = METRICS):
        self._path = run / name
        kept = [row for row in _rows(self._path) if row["step"] < first_step]
        write_atomically(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = self._path.open("a", buffering=1)  # a line at a time: a killed run loses none
        board = run / "tensorboard"
        self._board = SummaryWriter(str(board if name == METRICS else board / self._path.stem), purge_step=first_step)

    def write(self, row: dict[str, float]) -> None:
        """Add a row; it holds `step`."""
        # JSON has no NaN: a value that is not finite is null.
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        self._file.write(json.dumps(finite) + "\n")
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        """Flush and close both files."""
        self._file.close()
        self._board.close()


def read_metrics(run: Path, name: str = METRICS) -> list[dict[str, float]]:
    """The rows of such a file in the order of steps, without what was not finite, as the loss of a step that was left out.

    Raises:
        ValueError: a line is damaged.
    """
    return [{name: value for name, value in row.items() if value is not None} for row in _rows(run / name)]


def _rows(path: Path) -> list[dict[str, Any]]:
    """All that was written; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    rows = []
    for number, line in enumerate(path.read_text().splitlines(keepends=True), start=1):
        if line.endswith("\n"):
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number} of {path} is damaged: delete it, and what is left can be read") from error
    return rows
