"""The task that the tests of the loop train: a regression with dropout, so that randomness counts.

64 samples, 4 steps an epoch, 3 epochs.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evomask.engine.loop import Hook, StepResult, Task, TrainConfig, train
from evomask.engine.optim import OptimConfig, build_adamw

STEPS_PER_EPOCH, EPOCHS, BATCH = 4, 3, 16
STEPS = STEPS_PER_EPOCH * EPOCHS


class Regression:
    """What is to be learnt, and a record of every step: the state and the rate that it began with."""

    def __init__(self, dropout: float = 0.3, micro_batches: int = 1, clip_grad: float | None = None):
        generator = torch.Generator().manual_seed(0)
        self.inputs = torch.randn(64, 6, generator=generator)
        self.targets = self.inputs.square().sum(dim=1, keepdim=True)
        torch.manual_seed(1)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(dropout), nn.Linear(16, 1))
        self.optimizer = build_adamw(self.model, OptimConfig(weight_decay=0.1))
        self.micro_batches, self.clip_grad = micro_batches, clip_grad
        self.spoil: Callable[[int, Tensor], Tensor] = lambda step, loss: loss
        self.step_began = -1
        self.states: dict[int, dict[str, Any]] = {}
        self.rates: dict[int, list[float]] = {}
        self.progress: dict[int, float] = {}
        self.ranges: list[range] = []

    def state(self) -> dict[str, Any]:
        return deepcopy({"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()["state"]})

    def rate(self, step: int) -> float:
        return 0.01 * (1 + step % 3)

    def indices(self, step: int) -> list[int]:
        epoch, step_of_epoch = divmod(step, STEPS_PER_EPOCH)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(epoch)).tolist()
        return order[step_of_epoch * BATCH : (step_of_epoch + 1) * BATCH]

    def batches(self, steps: range) -> Iterator[tuple[int, Tensor]]:
        self.ranges.append(steps)
        for step in steps:
            torch.rand(step + 1)  # a loader that draws must change nothing
            for part in torch.tensor(self.indices(step)).chunk(self.micro_batches):
                yield step, part

    def run_step(self, batch: tuple[int, Tensor], progress: float) -> StepResult:
        step, part = batch
        self.step_began = step
        if step not in self.states:
            self.states[step] = self.state()
            self.rates[step] = [group["lr"] for group in self.optimizer.param_groups]
            self.progress[step] = progress
        loss = (self.model(self.inputs[part]) - self.targets[part]).square().mean()
        first = float(part[0])
        return StepResult(self.spoil(step, loss), lambda: {"first_index": first})

    def train(self, run: Path, hooks: list[Hook] | None = None, resume: bool = False, **config: Any) -> "Regression":
        run.mkdir(exist_ok=True)
        task = Task(
            model=self.model,
            optimizer=self.optimizer,
            learning_rate=self.rate,
            samples=len(self.inputs),
            steps_per_epoch=STEPS_PER_EPOCH,
            batches=self.batches,
            indices=self.indices,
            step=self.run_step,
            clip_grad=self.clip_grad,
        )
        settings = {"epochs": EPOCHS, "batch_size": BATCH, "log_every": 1, "device": "cpu"} | config
        train(task, TrainConfig(micro_batches=self.micro_batches, **settings), run, hooks or [], resume=resume)
        return self

    def train_plainly(self, leave_out: tuple[int, ...] = ()) -> list[float]:
        """The same training as a textbook writes it, without dropout; returns the gradient norms before clipping."""
        decaying = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": decaying, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), foreach=False)
        norms = []
        for step in range(STEPS_PER_EPOCH * EPOCHS):
            if step in leave_out:
                continue
            for group in optimizer.param_groups:
                group["lr"] = self.rate(step)
            index = torch.tensor(self.indices(step))
            optimizer.zero_grad()
            (self.model(self.inputs[index]) - self.targets[index]).square().mean().backward()
            norm = torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]).norm()
            norms.append(norm.item())
            if self.clip_grad and norm > self.clip_grad:
                for p in self.model.parameters():
                    assert p.grad is not None
                    p.grad *= self.clip_grad / norm
            optimizer.step()
        return norms


@pytest.fixture
def regression() -> type[Regression]:
    """The class; a test makes as many as it needs."""
    return Regression
