"""SIGINT and SIGTERM as a wish to stop after the current step."""

import signal
from pathlib import Path
from types import FrameType
from typing import Self

from evomask.engine import distributed


class Stopped(Exception):
    """Training was stopped by a signal; its state is saved. Of several processes all stop, at the same step.

    Attributes:
        signum: the signal's number.
        steps: that are behind it.
    """

    shared = True

    def __init__(self, signum: int, steps: int, run: Path):
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} after {steps} steps, all saved: `evomask resume {run}` goes on")
        self.signum, self.steps = signum, steps


class StopSignals:
    """While it is entered, a first SIGINT or SIGTERM is noted in `received`; a second one acts as it did before.

    Under torchrun a second one is nothing: a scheduler's signal comes once from itself, and once more from torchrun.
    """

    def __init__(self):
        self.received: int | None = None

    def __enter__(self) -> Self:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _note(self, signum: int, _: FrameType | None) -> None:
        self.received = signum
        if not distributed.launched():
            self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
