"""Steps that must not be taken, since their loss or gradient is not finite."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from evomask.engine import distributed


class StepHealth:
    """Skips steps whose loss or gradient is not finite, and stops the run after several in a row.

    Nothing here waits for the device but `skipped` and `stop_if_ill`, at logged steps: the optimiser itself leaves the weights
    alone where it finds `found_inf` set, as it does under a gradient scaler.

    Args:
        device: that the loss is on.
        limit: so many such steps in a row stop the run.
    """

    def __init__(self, device: torch.device, limit: int):
        self._limit = limit
        self._skipped = torch.zeros((), dtype=torch.long, device=device)
        self._streak = torch.zeros_like(self._skipped)
        self._longest = torch.zeros_like(self._skipped)
        self._longest_ends = torch.zeros_like(self._skipped)

    def check(self, optimizer: torch.optim.Optimizer, loss: Tensor, norm: Tensor, step: int) -> None:
        """Tell the optimiser whether to leave this step out."""
        ill = ~(loss.isfinite() & norm.isfinite())
        optimizer.found_inf = ill.float()  # type: ignore[attr-defined]
        self._skipped += ill
        self._streak = (self._streak + 1) * ill
        self._longest_ends = torch.where(self._streak > self._longest, step, self._longest_ends)
        self._longest = torch.maximum(self._longest, self._streak)

    def skipped(self) -> int:
        """Steps left out since this process began."""
        return int(self._skipped)

    def stop_if_ill(self, run: Path, indices: Callable[[int], list[int]]) -> None:
        """Raise a ValueError after too many such steps in a row, and list their samples in RUN/nonfinite_batches.json."""
        longest, last = int(self._longest), int(self._longest_ends)
        if longest < self._limit:
            return
        steps = range(last - longest + 1, last + 1)
        path = run / "nonfinite_batches.json"
        everywhere = distributed.gathered_objects({step: indices(step) for step in steps})
        with distributed.agreed():
            if distributed.rank() == 0:
                path.write_text(json.dumps({step: [index for each in everywhere for index in each[step]] for step in steps}))
            raise ValueError(
                f"the loss was not finite in {longest} steps in a row, {steps[0]} to {last}; their samples are listed in "
                f"{path}. Start again with a lower --optim.base-lr, or with --optim.clip-grad 1"
            )
