"""Checkpoints of a run: whole or not there at all, the last few kept, read without running code from the files.

torch.distributed.checkpoint writes them, every process its share, as safetensors; so any number of processes reads them,
sharded or not. A manifest with the checksums of all files is written last, and the folder then gets its name.
"""

import json
import logging
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
import torch.distributed
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.staging import BlockingAsyncStager
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from evomask.engine import distributed
from evomask.models.weight_files import MANIFEST, read_shards

_NAME = re.compile(r"step_(\d{8,})")
_CHUNK = 2**24
logger = logging.getLogger("evomask")


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    folder = run / "checkpoints"
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step_"))


class CheckpointWriter:
    """Writes the checkpoints of a model in training. All processes call it alike.

    Args:
        run: the run's folder.
        keep: how many of the newest are kept.
        model: whatever it is spread over.
        optimizer: the model's.
        beside: write while training goes on, after a copy from this device to memory. That pays on a GPU, where steps are
            short; then what goes wrong is said at the next save. None, as on a CPU, where the time does not count: it is said
            at once.
    """

    def __init__(self, run: Path, keep: int, model: nn.Module, optimizer: torch.optim.Optimizer, beside: torch.device | None):
        self._run, self._keep, self._model, self._optimizer = run, keep, model, optimizer
        self._pending: Future[Path] | None = None
        self._executor = None
        if beside is not None:
            # A thread begins at the first GPU, where it would take memory from the process that has that one.
            devices = torch.get_device_module(beside)
            self._executor = ThreadPoolExecutor(1, "checkpoint", devices.set_device, (devices.current_device(),))
        # Two threads cannot share a group: their messages would meet.
        several = beside is not None and distributed.world_size() > 1
        self._group = cast(ProcessGroup, torch.distributed.new_group(backend="gloo")) if several else None

    def save(self, step: int) -> None:
        """Save after that many steps. What went wrong with the one before, where that was written beside, is raised first."""
        self.wait()
        state = state_of(self._model, self._optimizer)
        if self._executor is None:
            write_checkpoint(self._run, step, state, self._keep)
        else:
            copy = BlockingAsyncStager().stage(state)
            self._pending = self._executor.submit(write_checkpoint, self._run, step, copy, self._keep, self._group)

    def wait(self) -> None:
        """Until all that was saved is on the disk."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a checkpoint holds: `model.NAME`, and `optimizer.NAME.KIND` for each parameter that has been trained.

    Rates and the like are not part of it: they follow from the configuration and the step.
    """
    state = {f"model.{name}": tensor.detach() for name, tensor in model.state_dict().items()}
    for name, parameter in model.named_parameters():
        for kind, tensor in optimizer.state.get(parameter, {}).items():
            state[f"optimizer.{name}.{kind}"] = tensor
    return state


def write_checkpoint(run: Path, step: int, state: dict[str, Tensor], keep: int, group: ProcessGroup | None = None) -> Path:
    """Write RUN/checkpoints/step_00000100 after 100 steps, and drop all but the newest `keep`. All processes call it.

    It is written under another name, flushed to the disk and renamed, so that a run killed at any moment leaves either a
    whole checkpoint or none.

    Raises:
        ValueError: it cannot be written, as the disk is full. Those before are as they were.
    """
    folder = run / "checkpoints"
    target, unfinished = folder / f"step_{step:08d}", folder / f"step_{step:08d}.unfinished"
    first = distributed.rank() == 0
    try:
        with distributed.agreed(group):
            if first:
                for leftover in folder.glob("*.unfinished"):  # of a process that was killed while it wrote
                    shutil.rmtree(leftover)
                unfinished.mkdir(parents=True)
        writer = HuggingFaceStorageWriter(str(unfinished), save_distributed=True)
        _together(save, state, storage_writer=writer, process_group=group)
        own: dict[str, dict[str, Any]] = {}
        with distributed.agreed(group):
            for path in unfinished.glob(f"shard-{distributed.rank() + 1:05d}-*"):  # none, where there are few parameters
                own[path.name] = {"bytes": path.stat().st_size, "crc32": _checksum(path)}
        files = {name: entry for part in distributed.gathered_objects(own, group) for name, entry in part.items()}
        with distributed.agreed(group):
            if first:
                _complete(unfinished, target, {"step": step, "processes": distributed.world_size(), "files": files})
                for old in checkpoints(run)[:-keep]:
                    shutil.rmtree(old)
    except (ValueError, OSError) as error:
        before = [path.name for path in checkpoints(run) if path != target]
        whole = f"{before[-1]} is whole" if before else "there is none before it"
        raise distributed.SharedFailure(
            f"the checkpoint of step {step} cannot be written to {folder} ({error}); {whole}: make room, and "
            f"`evomask resume {run}` goes on from there"
        ) from error
    return target


def _complete(unfinished: Path, target: Path, manifest: dict[str, Any]) -> None:
    with open(unfinished / MANIFEST, "w") as file:
        json.dump(manifest, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    if target.exists():  # saved at this very step before, by a run that was then stopped and resumed
        shutil.rmtree(target)
    unfinished.rename(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    os.fsync(descriptor)  # the name, too
    os.close(descriptor)


def _checksum(path: Path) -> str:
    value = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"


def damage_of(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files; None where they are as they were written."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
        for name, entry in files.items():
            size = (checkpoint / name).stat().st_size
            if size != entry["bytes"]:
                return f"{name} has {size} bytes instead of {entry['bytes']}"
            if _checksum(checkpoint / name) != entry["crc32"]:
                return f"{name} has changed since it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{Path(error.filename).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def newest_checkpoint(run: Path) -> Path:
    """The newest checkpoint whose files are as they were written. Damaged ones are named in the log, and left as they are.

    Raises:
        ValueError: there is none.
    """
    found = checkpoints(run)
    if not found:
        raise ValueError(f"{run} has no checkpoint yet: `evomask resume {run}` goes on with it")
    damages = []
    for checkpoint in reversed(found):
        damage = damage_of(checkpoint)
        if damage is None:
            for damaged, reason in damages:
                logger.warning("%s is damaged (%s): %s is used", damaged, reason, checkpoint.name)
            return checkpoint
        damages.append((checkpoint, damage))
    named = "; ".join(f"{path.name}: {reason}" for path, reason in damages)
    raise ValueError(f"no checkpoint of {run} is whole ({named}): start anew, with another --out")


def restore(run: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest checkpoint, whatever number of processes wrote it. All processes call it.

    Returns:
        The steps that it has behind it; 0 for a run that has no checkpoint yet, which starts anew.

    Raises:
        ValueError: none of the run's checkpoints is whole, or the newest is of another model.
    """
    path = distributed.from_first(lambda: newest_checkpoint(run) if checkpoints(run) else None)
    if path is None:
        return 0
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    moments = _moments_like(path, model)
    for name, kinds in moments.items():
        state |= {f"optimizer.{name}.{kind}": tensor for kind, tensor in kinds.items()}
    try:
        _together(load, state, storage_reader=HuggingFaceStorageReader(str(path)))
    except ValueError as error:
        raise distributed.SharedFailure(f"{path} does not fit the model of this run: {error}") from error
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in state.items() if name.startswith("model.")})
    for name, parameter in model.named_parameters():
        if name in moments:
            optimizer.state[parameter] = moments[name]
    if distributed.rank() == 0:
        for later in checkpoints(run):
            if _step_of(later) > _step_of(path):  # damaged, and in the way of those to come
                shutil.rmtree(later.with_suffix(".damaged"), ignore_errors=True)
                later.rename(later.with_suffix(".damaged"))
    return _step_of(path)


def _moments_like(path: Path, model: nn.Module) -> dict[str, dict[str, Any]]:
    """Empty tensors for what the optimiser keeps of each parameter, sharded as the parameter is."""
    kept = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
    moments: dict[str, dict[str, Any]] = {name: {} for name, _ in model.named_parameters()}
    parameters = dict(model.named_parameters())
    for key, described in kept.items():
        name, _, kind = key.removeprefix("optimizer.").rpartition(".")
        if not key.startswith("optimizer.") or name not in moments:
            continue
        like = parameters[name]
        size, dtype = described.size, described.properties.dtype  # type: ignore[union-attr]
        alike = size == like.shape and like.ndim > 0
        moments[name][kind] = (
            torch.zeros_like(like, dtype=dtype, requires_grad=False)
            if alike
            else torch.zeros(size, dtype=dtype, device=like.device)
        )
    return {name: kinds for name, kinds in moments.items() if kinds}


def load_checkpoint(run: Path) -> dict[str, Any]:
    """The newest state of a run, `step`, `model` and `optimizer`, whole and on the CPU. One process suffices.

    Raises:
        ValueError: the run has no checkpoint, or none that is whole.
    """
    path = newest_checkpoint(run)
    state: dict[str, Any] = {"step": _step_of(path), "model": {}, "optimizer": {}}
    for key, tensor in read_shards(path).items():
        part, _, name = key.partition(".")
        if part == "model":
            state["model"][name] = tensor
        else:
            name, _, kind = name.rpartition(".")
            state["optimizer"].setdefault(name, {})[kind] = tensor
    return state


def _together(action: Callable[..., Any], state: dict[str, Tensor], **how: Any) -> None:
    """Save or load; what one process fails at, all fail at."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "torch.distributed is disabled")  # as it is in a single process
            action(state, no_dist=distributed.world_size() == 1, **how)
    except CheckpointException as error:
        _raise_its_cause(error)


def _raise_its_cause(error: CheckpointException) -> NoReturn:
    number, (cause, _) = next(iter(error.failures.items()))
    said = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause) or type(cause).__name__
    where = f" in process {number}" if distributed.world_size() > 1 else ""
    raise ValueError(" ".join(said.split()) + where) from error
