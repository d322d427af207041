"""Progress of a long piece of work: a bar with the time left on a terminal, plain lines elsewhere."""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from evomask.engine import distributed

PLAIN_LINE_SECONDS = 10.0


class ProgressBar:
    """Shows `total` steps of `title`, in the first process; lines go to stderr, so that stdout holds results alone."""

    def __init__(self, title: str, total: int, done: int = 0):
        self._title, self._total, self._first = title, total, done
        self._console = Console(stderr=True, quiet=distributed.rank() > 0)
        self._started = self._last_line = time.monotonic()
        self._bar: Progress | None = None
        if self._console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=self._console)
            self._task = self._bar.add_task(title, total=total, completed=done, note="")
            self._bar.start()

    def update(self, done: int, note: str = "") -> None:
        """`done` steps are over; `note` is shown beside, for example the loss."""
        if self._bar:
            fields: dict[str, Any] = {"note": note} if note else {}
            self._bar.update(self._task, completed=done, **fields)
            return
        now = time.monotonic()
        if done == self._total or (note and now - self._last_line >= PLAIN_LINE_SECONDS):
            self._last_line = now
            left = (now - self._started) / max(1, done - self._first) * (self._total - done)
            self._console.print(f"{self._title} {done}/{self._total}  {note}  {_clock(left)} left", highlight=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bar:
            self._bar.stop()


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
