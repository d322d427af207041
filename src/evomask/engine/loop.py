"""The one training loop: steps, accumulation, resuming, signals, progress, hooks. It knows no task and no figure.

A task hands it a `Task`: the model, its optimiser, and a function that turns a batch into a loss. Every step is a function of
(state, seed, step): batches and randomness are derived, not carried along, so a run that was stopped, or killed, at any step
goes on as if nothing had happened.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from evomask.data.sampler import sample_seed
from evomask.engine import distributed
from evomask.engine.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from evomask.engine.metrics import MetricsLog
from evomask.engine.progress import ProgressBar
from evomask.engine.run import sole_use
from evomask.engine.signals import Stopped, StopSignals


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train, whatever the task.

    Attributes:
        epochs: passes over the data, T.
        batch_size: images, or masks of images, a step, over all processes and micro-batches.
        micro_batches: in how many parts, one after the other, a process takes its share of a batch, to save memory.
        seed: of the weights, the order of the images, crops and masks.
        precision: "bfloat16" autocasts; "auto" does so on a GPU that has it, and not on a CPU.
        device: "auto", "cpu", "cuda", "cuda:1".
        compile: whether blocks are compiled by torch.compile; "auto" does so on a GPU, where it pays.
        log_every: steps between two rows of the log.
        save_minutes: minutes between two checkpoints; 0 saves after every step. There is one at the end and on a signal.
        keep: how many of the newest checkpoints are kept.
        max_nonfinite: so many steps in a row without a finite loss stop the run; each of them is skipped.
    """

    epochs: int = 300
    batch_size: int = 256
    micro_batches: int = 1
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    log_every: int = 10
    save_minutes: float = 5.0
    keep: int = 2
    max_nonfinite: int = 5

    def __post_init__(self):
        for name in ("epochs", "batch_size", "micro_batches", "log_every", "keep", "max_nonfinite"):
            if getattr(self, name) < 1:
                raise ValueError(f"--train.{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a task makes of one micro-batch.

    Attributes:
        loss: scalar, to be minimised.
        metrics: called at logged steps only, since it may wait for the device.
    """

    loss: Tensor
    metrics: Callable[[], dict[str, float]] = field(default=dict)


@dataclass(frozen=True)
class Moment:
    """Where training stands: `epoch` is about to begin, or training is over and `epoch` is the number of epochs."""

    epoch: int
    step: int
    progress: float


class Hook(Protocol):
    """Called at the start of every epoch and once at the end; may look at the model, and must not change it."""

    def __call__(self, moment: Moment) -> None:
        """Look at the model where training stands."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the loop has to be told.

    Attributes:
        model: whose state is saved; on its device already.
        optimizer: fused, so that it can skip a step without asking the device.
        learning_rate: step -> rate; a group's `lr_scale` multiplies it.
        steps_per_epoch: steps in an epoch.
        batches: range of steps -> their micro-batches, one after the other.
        indices: step -> the samples of that step, to be named when a loss is not finite.
        step: (micro-batch, progress = epoch / epochs) -> loss.
        clip_grad: largest gradient norm, None: not clipped.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: Callable[[int], float]
    steps_per_epoch: int
    batches: Callable[[range], Iterator[Any]]
    indices: Callable[[int], list[int]]
    step: Callable[[Any, float], StepResult]
    clip_grad: float | None = None


def train(task: Task, config: TrainConfig, run: Path, hooks: Sequence[Hook] = (), resume: bool = False) -> None:
    """Train to the end, or until a signal.

    Args:
        task: what to train.
        config: how.
        run: the folder of the run, for checkpoints and metrics.
        hooks: called at the start of every epoch and at the end.
        resume: go on from the newest checkpoint in `run`, or from the beginning where there is none yet.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: another process trains in `run`; the loss was not finite several times in a row, or what the task
            raises. The state before is saved.
    """
    with sole_use(run) if distributed.rank() == 0 else nullcontext():
        _train(task, config, run, hooks, resume)


def _train(task: Task, config: TrainConfig, run: Path, hooks: Sequence[Hook], resume: bool) -> None:
    device = next(task.model.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(config.precision, device))
    total = config.epochs * task.steps_per_epoch
    health = _StepHealth(device, config.max_nonfinite)
    first = _restore(task, run) if resume else 0
    parameters = [p for group in task.optimizer.param_groups for p in group["params"]]

    def save(done: int) -> None:
        if distributed.rank() == 0:
            state = {"step": done, "model": task.model.state_dict(), "optimizer": task.optimizer.state_dict()}
            save_checkpoint(run, done, state, config.keep)

    done = saved = first
    progress_bar = ProgressBar("training", total, done=first)
    with closing(MetricsLog(run, first)) as log, closing(progress_bar), StopSignals() as signals:
        batches = task.batches(range(first, total))
        last_saved_at = last_logged_at = time.monotonic()
        last_logged_step = first
        torn = False
        try:
            for step in range(first, total):
                epoch, step_of_epoch = divmod(step, task.steps_per_epoch)
                progress = epoch / config.epochs
                if step_of_epoch == 0:
                    for hook in hooks:
                        hook(Moment(epoch, step, progress))
                task.model.train()
                lr = task.learning_rate(step)
                for group in task.optimizer.param_groups:
                    group["lr"] = lr * group.get("lr_scale", 1.0)

                loss = torch.zeros((), device=device)
                results: list[StepResult] = []
                micro_batches = [next(batches) for _ in range(config.micro_batches)]
                # Seeded after the batch is there: without workers, loading draws from the same generator.
                torch.manual_seed(sample_seed(config.seed, step, distributed.rank()))
                for batch in micro_batches:
                    with autocast:
                        result = task.step(batch, progress)
                    (result.loss / config.micro_batches).backward()
                    loss += result.loss.detach() / config.micro_batches
                    results.append(result)
                norm = torch.nn.utils.clip_grad_norm_(parameters, task.clip_grad or float("inf"))
                health.check(task.optimizer, loss, norm, step)
                torn = True  # an error in here, as the death of a loader's process raises it anywhere, leaves half a step
                task.optimizer.step()
                task.optimizer.zero_grad(set_to_none=True)
                done, torn = step + 1, False

                if done % config.log_every == 0 or done == total:
                    now = time.monotonic()
                    images = (done - last_logged_step) * config.batch_size
                    row = {"step": step, "epoch": epoch, "progress": progress, "loss": loss.item(), "lr": lr}
                    row |= {"grad_norm": norm.item(), "images_per_second": images / (now - last_logged_at)}
                    row["skipped_steps"] = health.skipped()
                    log.write(row | _mean([result.metrics() for result in results]))
                    progress_bar.update(done, f"epoch {epoch + 1}/{config.epochs}  loss {row['loss']:.4f}")
                    last_logged_at, last_logged_step = now, done
                    health.stop_if_ill(run, task.indices)
                else:
                    progress_bar.update(done)
                if signals.received is not None:
                    raise Stopped(signals.received, done, run)
                if done == total or time.monotonic() - last_saved_at >= 60 * config.save_minutes:
                    save(done)
                    saved, last_saved_at = done, time.monotonic()
        except Exception:
            if done > saved and not torn:
                save(done)
            raise
        for hook in hooks:
            hook(Moment(config.epochs, total, 1.0))


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to autocast to bfloat16: "auto" does where it pays, on a GPU that computes in it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


class _StepHealth:
    """Skips steps whose loss or gradient is not finite, and stops the run after several in a row.

    Nothing here waits for the device but `stop_if_ill`, at logged steps: the optimiser itself leaves the weights alone where
    it finds `found_inf` set, as it does under a gradient scaler.
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
        path.write_text(json.dumps({step: indices(step) for step in steps}))
        raise ValueError(
            f"the loss was not finite in {longest} steps in a row, {steps[0]} to {last}; their samples are listed in {path}. "
            "Start again with a lower --optim.base-lr, or with --optim.clip-grad 1"
        )


def _restore(task: Task, run: Path) -> int:
    """Load the newest checkpoint and return how many steps it has behind it; a run that has none yet starts anew."""
    if not checkpoints(run):
        return 0
    state = load_checkpoint(run)
    task.model.load_state_dict(state["model"])
    task.optimizer.load_state_dict(state["optimizer"])
    return state["step"]


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
