"""Which process this is, on which device, and what all processes agree on. A single process is rank 0 of 1.

torchrun starts the processes; nothing here needs a GPU. Tensors on a CPU travel by gloo, those on a GPU by NCCL.
"""

import logging
import math
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from evomask.data.sampler import StepSampler

Value = TypeVar("Value")
PATIENCE_AT_THE_START = timedelta(minutes=5)
"""How long a process waits for the others to come. Where one of them ends instead, torchrun ends all."""
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others where it is no step that is waited for; for those see `engine.watch`."""

logger = logging.getLogger("evomask")
_stores: list[Store] = []


class SharedFailure(ValueError):
    """What one process failed at; every process raises it, and the first one says it."""

    shared = True


class LostProcess(OSError):
    """Another process has ended, or cannot be reached any more."""

    shared = True


def rank() -> int:
    """This process's number."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes that train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def launched() -> bool:
    """Whether torchrun, or something like it, has started this process as one of several."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def job() -> str | None:
    """What torchrun calls this job, the same after a restart; None where it has no name of its own."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name in (None, "", "none") else name


def store() -> Store:
    """Where the processes leave word for each other; torchrun's own process keeps it."""
    return _stores[-1]


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun has started; in a single process, and where they have been joined, do nothing.

    Raises:
        LostProcess: another process has ended meanwhile.
    """
    if not launched() or dist.is_initialized():
        yield
        return
    kept, number, processes = next(rendezvous("env://", timeout=PATIENCE_AT_THE_START))
    joined = PrefixStore(_name_of_this_start(kept, number, processes), kept)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, store=joined, rank=number, world_size=processes, timeout=PATIENCE)
    _stores.append(joined)
    try:
        yield
    except RuntimeError as error:
        # After an error of one process alone the others may be anywhere: they are not waited for.
        if _is_of_the_network(error):
            _say_once_that_a_process_is_lost(error)
        raise
    dist.destroy_process_group()
    _stores.pop()


def _name_of_this_start(kept: Store, number: int, processes: int) -> str:
    """A name that all processes have in common, and those before a restart had not.

    torchrun keeps one store for all restarts (torch 2.15), and with it the addresses at which nobody answers any more. Each
    process asks the first one under a name that nobody has had before, so what it is answered is no leftover.
    """
    own = uuid.uuid4().hex
    kept.set(f"asks/{number}", own)
    if number > 0:
        name = kept.get(f"answer/{own}").decode()
        kept.set(f"heard/{name}/{number}", "")
        return name
    deadline = time.monotonic() + PATIENCE_AT_THE_START.total_seconds()
    missing, answered = set(range(1, processes)), set[str]()
    while missing:
        if time.monotonic() > deadline:
            raise LostProcess(f"processes {sorted(missing)} of {processes} have not come within {PATIENCE_AT_THE_START}")
        for other in missing:
            if kept.check([f"asks/{other}"]) and (asked := kept.get(f"asks/{other}").decode()) not in answered:
                answered.add(asked)
                kept.set(f"answer/{asked}", own)
        missing = {other for other in missing if not kept.check([f"heard/{own}/{other}"])}
        time.sleep(0.01)
    return own


def _is_of_the_network(error: RuntimeError) -> bool:
    said = str(error)
    return isinstance(error, dist.DistError) or "gloo" in said or "Connection" in said or "Broken pipe" in said


def first_to_give_up(kept: Store) -> bool:
    """Whether this process is the first one of all that has found out that they cannot go on: it is to say so."""
    try:
        return kept.add("given up", 1) == 1
    except RuntimeError:  # whoever kept the store is gone, too
        return True


def wait_for_all_to_give_up(kept: Store, seconds: float) -> None:
    """Until all processes have found out, or for so long; for the one that keeps the store that tells them who says so."""
    deadline = time.monotonic() + seconds
    with suppress(RuntimeError):  # under torchrun another process keeps it, and may be gone
        while kept.add("given up", 0) < world_size() and time.monotonic() < deadline:
            time.sleep(0.01)


def _say_once_that_a_process_is_lost(error: RuntimeError) -> NoReturn:
    if first_to_give_up(store()):
        reason = str(error).strip().splitlines()[0].rpartition("] ")[2]
        logger.error(
            "process %d of %d on %s has lost another one (%s); torchrun says which. `torchrun --max-restarts 3` goes on by "
            "itself, and so does `evomask resume`, from the newest checkpoint",
            *(rank(), world_size(), socket.gethostname(), reason),
        )
    lost = LostProcess("another process has ended")
    lost.said = True  # type: ignore[attr-defined]
    raise lost from error


@contextmanager
def agreed(group: dist.ProcessGroup | None = None) -> Iterator[None]:
    """What one process fails at in here, all fail at, so that none waits for one that is gone.

    Nothing in here may wait for other processes, but at such a place in turn: all places are alike, and a process that has
    failed meets the others at the next one that they come to. In a single process it does nothing.

    Raises:
        SharedFailure: with the message of the first process that failed.
    """
    if world_size() == 1:
        yield
        return
    failure = None
    try:
        yield
    except SharedFailure:
        raise  # the others know
    except Exception as error:
        failure = error
    # An integer first, since objects cost several messages.
    failed = torch.tensor(failure is not None, dtype=torch.long)
    dist.all_reduce(failed, group=group)
    if not failed:
        return
    if failure is not None and not isinstance(failure, (ValueError, OSError)):
        logger.error("process %d failed", rank(), exc_info=failure)  # a mistake of ours, or of a library: where it happened
    words: list[str | None] = [None] * world_size()
    dist.all_gather_object(words, None if failure is None else str(failure) or type(failure).__name__, group=group)
    number, message = next((number, word) for number, word in enumerate(words) if word is not None)
    everywhere = None not in words
    raise SharedFailure(message if everywhere or number == 0 else f"{message} (process {number})") from failure


def largest(*numbers: int) -> list[int]:
    """Of each number the largest that a process has."""
    if world_size() == 1:
        return list(numbers)
    found = torch.tensor(numbers, dtype=torch.long)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return found.tolist()


def from_first(value: Callable[[], Value]) -> Value:
    """What the function returns in the first process; it is called there alone. An error there is one of all."""
    found: list[Any] = [None]
    with agreed():
        if rank() == 0:
            found[0] = value()
    if world_size() > 1:
        dist.broadcast_object_list(found)
    return found[0]


def mean(tensor: Tensor) -> Tensor:
    """Over all processes; the host does not wait for a device."""
    if world_size() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total / world_size()


def mean_row(row: dict[str, float]) -> dict[str, float]:
    """Each value's mean over all processes, which have the same names."""
    means = mean(torch.tensor(list(row.values()), dtype=torch.float64))
    return dict(zip(row, means.tolist(), strict=True))


def gathered(tensor: Tensor) -> Tensor:
    """(n, ...) of each process, one after the other: (processes * n, ...), equal n and on the same kind of device."""
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def gathered_objects(value: Value, group: dist.ProcessGroup | None = None) -> list[Value]:
    """That of each process, in their order."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value, group=group)
    return found


def own_share(length: int) -> range:
    """Which of `length` things this process takes, equally many in each: past the end it begins again."""
    size = math.ceil(length / world_size())
    return range(rank() * size, (rank() + 1) * size)


def parts_of_a_batch(micro_batches: int) -> int:
    """In how many parts a batch is taken: as many as asked for, or the next number that all processes have equally many of."""
    return math.lcm(micro_batches, world_size())


def shared_out(length: int, batch_size: int, seed: int, micro_batches: int) -> Callable[[range], StepSampler]:
    """Range of steps -> this process's share of their batches; for the numbers see `TrainConfig` and `StepSampler`."""
    each = parts_of_a_batch(micro_batches) // world_size()
    shares = {"rank": rank(), "world_size": world_size(), "micro_batches": each}
    return partial(StepSampler, length, batch_size, seed, **shares)


def pick_device(name: str) -> torch.device:
    """The device to compute on: "auto" takes a GPU where there is one. Of several processes of a machine each has its own.

    Raises:
        ValueError: there is no such device on this machine.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and launched():
        name = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}): try auto") from error
    device = torch.device(name)
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device
