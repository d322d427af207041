"""Which process this is, what it takes of each batch, and on which device. A single process is rank 0 of 1."""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed

from evomask.data.sampler import StepSampler


def rank() -> int:
    """This process's number."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def shared_out(length: int, batch_size: int, seed: int, micro_batches: int) -> Callable[[range], StepSampler]:
    """Range of steps -> this process's share of their batches; for the numbers see `StepSampler`."""
    shares = {"rank": rank(), "world_size": world_size(), "micro_batches": micro_batches}
    return partial(StepSampler, length, batch_size, seed, **shares)


def pick_device(name: str) -> torch.device:
    """The device to compute on: "auto" takes a GPU where there is one.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}): try --train.device auto") from error
    return torch.device(name)
