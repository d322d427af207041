"""A task whose steps take the samples of a data set, at the rates of an `OptimConfig`: all but its model, step and batches."""

import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn

from evomask.data.sampler import StepSampler
from evomask.engine import distributed
from evomask.engine.loop import StepResult, Task, TrainConfig
from evomask.engine.optim import OptimConfig, learning_rate

logger = logging.getLogger("evomask")


def task_over(
    sampler: Callable[[range], StepSampler],
    *,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: Callable[[Any, float], StepResult],
    batches: Callable[[range], Iterator[Any]],
    optim: OptimConfig,
    settings: TrainConfig,
    steps_per_epoch: int | None = None,
) -> Task:
    """What the loop has to be told.

    Args:
        sampler: range of steps -> this process's share of their batches, see `distributed.shared_out`.
        model: see `Task`.
        optimizer: see there.
        step: see there.
        batches: see there; of the samples that the sampler names.
        optim: the schedule, and the largest gradient norm.
        settings: for how many epochs, and how large a batch the rate is for.
        steps_per_epoch: None: as many as the sampler has.

    Raises:
        ValueError: there are fewer samples than a batch takes, or a batch cannot be shared out.
    """
    if optim.warmup_epochs >= settings.epochs and distributed.rank() == 0:
        logger.warning(
            "the rate rises over %g epochs of a training of %d: it never gets to what was asked for, see --optim.warmup-epochs",
            optim.warmup_epochs,
            settings.epochs,
        )
    steps_per_epoch = steps_per_epoch or sampler(range(0)).steps_per_epoch
    return Task(
        model=model,
        optimizer=optimizer,
        learning_rate=partial(
            learning_rate,
            config=optim,
            batch_size=settings.batch_size,
            steps_per_epoch=steps_per_epoch,
            epochs=settings.epochs,
        ),
        samples=sampler(range(0)).length,
        steps_per_epoch=steps_per_epoch,
        batches=batches,
        indices=lambda step: sampler(range(0)).indices(step),
        step=step,
        clip_grad=optim.clip_grad,
    )
