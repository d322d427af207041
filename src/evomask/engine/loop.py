"""The one training loop: steps, accumulation, resuming, signals, progress, hooks. It knows no task and no figure.

A task hands it a `Task`: the model, its optimiser, and a function that turns a batch into a loss. Every step is a function of
(state, seed, step): batches and randomness are derived, not carried along, so a run that was stopped, or killed, at any step
goes on as if nothing had happened.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from evomask.data.sampler import sample_seed
from evomask.engine import distributed, parallel
from evomask.engine.checkpoint import CheckpointWriter, restore
from evomask.engine.metrics import MetricsLog
from evomask.engine.progress import ProgressBar
from evomask.engine.run import hold_to_samples, sole_use
from evomask.engine.signals import Stopped, StopSignals
from evomask.engine.step_health import StepHealth
from evomask.engine.watch import Watch


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how to train, whatever the task.

    Attributes:
        epochs: passes over the data, T.
        batch_size: images, or masks of images, a step, over all processes and micro-batches.
        micro_batches: in how many parts a batch is taken, by all processes together, to save memory; with fewer processes each
            takes more of them, one after the other. At least one a process. Stochastic depth, mixup and the like draw for a
            part at a time, so these draws change with this number, and with that of processes only above it.
        seed: of the weights, the order of the images, crops and masks.
        precision: "bfloat16" autocasts; "auto" does so on a GPU that has it, and not on a CPU.
        device: "auto", "cpu", "cuda", "cuda:1".
        compile: whether blocks are compiled by torch.compile; "auto" does so in pretraining on a GPU, where it pays.
        parallel: how several processes share the work: "ddp" gives each the whole model; "fsdp" also shares out its weights,
            gradients and the optimiser's state, to save memory.
        checkpoint_activations: compute blocks again in the backward pass, to save memory: a third more time.
        log_every: steps between two rows of the log.
        save_minutes: minutes between two checkpoints; 0 saves after every step. There is one at the end and on a signal.
        keep: how many of the newest checkpoints are kept.
        max_nonfinite: so many steps in a row without a finite loss stop the run; each of them is skipped.
        timeout_seconds: of several processes, how long one may be waited for in a step before the others name it and end; for
            the first step, for checkpoints and for what is done between epochs thirty times that.
    """

    epochs: int = 300
    batch_size: int = 256
    micro_batches: int = 1
    seed: int = 0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    parallel: Literal["ddp", "fsdp"] = "ddp"
    checkpoint_activations: bool = False
    log_every: int = 10
    save_minutes: float = 5.0
    keep: int = 2
    max_nonfinite: int = 5
    timeout_seconds: int = 60

    def __post_init__(self):
        at_least_1 = ("epochs", "batch_size", "micro_batches", "log_every", "keep", "max_nonfinite", "timeout_seconds")
        for name, value in (dict.fromkeys(at_least_1, 1) | {"seed": 0, "save_minutes": 0}).items():
            if getattr(self, name) < value:
                option = name.replace("_", "-")
                raise ValueError(f"--train.{option}, or --loop.{option}, must be at least {value}, not {getattr(self, name)}")


def share_out(config: TrainConfig) -> TrainConfig:
    """The same with at least one micro-batch for each process that there is now, to be written down with the run.

    So the run does the same with fewer processes, of which each then takes more of them.
    """
    return replace(config, micro_batches=distributed.parts_of_a_batch(config.micro_batches))


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
    """Where training stands: `epoch` is about to begin, or training is over and `epoch` is the number of epochs.

    `progress` is that of the step which comes next, or when training is over, of the last one.
    """

    epoch: int
    step: int
    progress: float


class Hook(Protocol):
    """Called at the start of every epoch and once at the end, in every process; may look at the model, and must not change it.

    See `FirstProcessHooks` for those that are not made for several processes.
    """

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
        samples: in the data set, over all processes.
        steps_per_epoch: steps in an epoch.
        batches: range of steps -> their micro-batches, one after the other.
        indices: step -> the samples of that step that this process takes, to be named when a loss is not finite.
        step: (micro-batch, progress) -> loss; progress is the share of training that is over, from 0 up to but not including 1.
        clip_grad: largest gradient norm, None: not clipped.
        progress_by_step: whether it grows with every step; else with every epoch, epoch / epochs.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    learning_rate: Callable[[int], float]
    samples: int
    steps_per_epoch: int
    batches: Callable[[range], Iterator[Any]]
    indices: Callable[[int], list[int]]
    step: Callable[[Any, float], StepResult]
    clip_grad: float | None = None
    progress_by_step: bool = False


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
    with ExitStack() as stack:
        with distributed.agreed():
            if distributed.rank() == 0:
                stack.enter_context(sole_use(run))
                hold_to_samples(run, task.samples)
        watch = stack.enter_context(Watch(config.timeout_seconds))
        _train(task, config, run, hooks, resume, watch)


def _train(task: Task, config: TrainConfig, run: Path, hooks: Sequence[Hook], resume: bool, watch: Watch) -> None:
    device = next(task.model.parameters()).device
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(config.precision, device))
    total = config.epochs * task.steps_per_epoch
    health = StepHealth(device, config.max_nonfinite)
    first = restore(run, task.model, task.optimizer) if resume else 0
    parameters = [p for group in task.optimizer.param_groups for p in group["params"]]
    run_step, no_sync = parallel.across_processes(parameters, task.step)
    own_parts = distributed.own_share(distributed.parts_of_a_batch(config.micro_batches))
    writer = CheckpointWriter(run, config.keep, task.model, task.optimizer, beside=device if device.type == "cuda" else None)

    def save(done: int) -> None:
        nonlocal saved
        saved = done  # where it fails, it is not tried again
        watch.at(done, "a checkpoint", long=True)
        with not_of_a_step():
            writer.save(done)

    def call_hooks(moment: Moment) -> None:
        watch.at(moment.step, "hooks", long=True)
        with distributed.agreed(), not_of_a_step():
            for hook in hooks:
                hook(moment)

    @contextmanager
    def not_of_a_step() -> Iterator[None]:
        """What is done within does not count in images a second."""
        nonlocal last_logged_at
        started = time.monotonic()
        yield
        last_logged_at += time.monotonic() - started

    def progress_of(step: int) -> float:
        return (step if task.progress_by_step else step - step % task.steps_per_epoch) / total

    done = saved = first
    with ExitStack() as stack:
        with distributed.agreed():
            log = stack.enter_context(closing(MetricsLog(run, first))) if distributed.rank() == 0 else None
        progress_bar = stack.enter_context(closing(ProgressBar("training", total, done=first)))
        signals = stack.enter_context(StopSignals())
        batches = task.batches(range(first, total))
        last_saved_at = last_logged_at = time.monotonic()
        last_logged_step = first
        torn = False
        try:
            for step in range(first, total):
                epoch, step_of_epoch = divmod(step, task.steps_per_epoch)
                progress = progress_of(step)
                if step_of_epoch == 0:
                    call_hooks(Moment(epoch, step, progress))
                task.model.train()
                lr = task.learning_rate(step)
                for group in task.optimizer.param_groups:
                    group["lr"] = lr * group.get("lr_scale", 1.0)

                loss = torch.zeros((), device=device)
                results: list[StepResult] = []
                watch.at(step, "images", long=step == first)
                with distributed.agreed():
                    micro_batches = [next(batches) for _ in own_parts]
                    watch.at(step, "the others' images", long=step == first)
                for part, batch in zip(own_parts, micro_batches, strict=True):
                    watch.at(step, "the model", long=step == first)
                    # Seeded after the batch is there: without workers, loading draws from the same generator.
                    torch.manual_seed(sample_seed(config.seed, step, part))
                    with nullcontext() if part == own_parts[-1] else no_sync():
                        with autocast:
                            result = run_step(batch, progress)
                        watch.at(step, "gradients", long=step == first)
                        (result.loss / len(own_parts)).backward()
                    loss += result.loss.detach() / len(own_parts)
                    results.append(result)
                loss, norm = distributed.mean(loss), parallel.clip_gradients(parameters, task.clip_grad)
                health.check(task.optimizer, loss, norm, step)
                torn = True  # an error in here, as the death of a loader's process raises it anywhere, leaves half a step
                task.optimizer.step()
                task.optimizer.zero_grad(set_to_none=True)
                done, torn = step + 1, False

                watch.at(step, "the end")
                if done % config.log_every == 0 or done == total:
                    now = time.monotonic()
                    images = (done - last_logged_step) * config.batch_size
                    row = {"step": step, "epoch": epoch, "progress": progress, "loss": loss.item(), "lr": lr}
                    row |= {"grad_norm": norm.item(), "images_per_second": images / (now - last_logged_at)}
                    row["skipped_steps"] = health.skipped()
                    row |= distributed.mean_row(_mean([result.metrics() for result in results]))
                    with distributed.agreed():
                        if log is not None:
                            log.write(row)
                    progress_bar.update(done, f"epoch {epoch + 1}/{config.epochs}  loss {row['loss']:.4f}")
                    last_logged_at, last_logged_step = now, done
                    health.stop_if_ill(run, task.indices)
                else:
                    progress_bar.update(done)
                is_time = done == total or time.monotonic() - last_saved_at >= 60 * config.save_minutes
                signum, is_time = distributed.largest(signals.received or 0, is_time)
                if signum:
                    raise Stopped(signum, done, run)
                if is_time:
                    save(done)
                    last_saved_at = time.monotonic()
        except Exception as error:
            # Of several processes, only what all have agreed on finds all of them here.
            if torn or not (distributed.world_size() == 1 or getattr(error, "shared", False)):
                raise
            if done > saved:
                save(done)
                writer.wait()
            # A signal to all processes of a group may end those that load images first, which is no error then: where they are
            # not forked, as Python 3.14 does not by itself, it ends the one that made them, and they with it.
            [signum] = distributed.largest(signals.received or 0)
            if signum and isinstance(error, ValueError):
                raise Stopped(signum, done, run) from error
            raise
        writer.wait()
        call_hooks(Moment(config.epochs, total, progress_of(total - 1)))


def use_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to autocast to bfloat16: "auto" does where it pays, on a GPU that computes in it."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return precision == "bfloat16"


def prepare_blocks(model: nn.Module, config: TrainConfig) -> None:
    """As the settings say, checkpoint and compile the blocks of what an evaluation trains; sharding comes after it."""
    if config.checkpoint_activations:
        parallel.checkpoint_activations(model)
    if config.compile == "on":
        parallel.compile_blocks(model)


class FirstProcessHooks:
    """Hooks for the first process, while the others wait; they look at a whole model, also where it is sharded in training.

    Args:
        hooks: made from what `shown` is; they are called in the first process alone.
        model: in training.
        shown: what the hooks look at: the model itself, or where it is sharded a plain one, which is given its weights.
    """

    def __init__(self, hooks: Sequence[Hook], model: nn.Module, shown: nn.Module):
        self._hooks, self._model, self._shown = hooks, model, shown

    def __call__(self, moment: Moment) -> None:
        """Call them."""
        if self._shown is not self._model:
            parallel.load_whole(self._model, self._shown)
        if distributed.rank() == 0:
            # A look has shapes of its own, for which compiling anew would take longer than it does.
            with torch.compiler.set_stance("force_eager"):
                for hook in self._hooks:
                    hook(moment)


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
