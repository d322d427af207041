"""A run that stopped, for whatever reason and at whatever step, goes on as if nothing had happened."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evomask.engine.checkpoint import checkpoints, load_checkpoint
from evomask.engine.loop import Moment
from evomask.engine.metrics import read_metrics
from evomask.engine.signals import Stopped

STEPS_PER_EPOCH, EPOCHS = 4, 3
STEPS = STEPS_PER_EPOCH * EPOCHS
Make = Callable[..., Any]


def assert_equal(actual: Any, expected: Any) -> None:
    """Bit for bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def raise_at(step: int, error: Exception, micro_batch: int = 1) -> Callable[[int, Tensor], Tensor]:
    seen = []

    def spoil(at: int, loss: Tensor) -> Tensor:
        seen.append(at)
        if seen.count(step) == micro_batch:
            raise error
        return loss

    return spoil


def stop_by_error(run: Path, done: int, **options: Any) -> None:
    """Die in the middle of a step, in the last of its micro-batches."""
    toy = regression(**options)
    toy.spoil = raise_at(done, RuntimeError("a task's own mistake"), toy.micro_batches)
    with pytest.raises(RuntimeError, match="a task's own mistake"):
        toy.train(run)


def stop_by_signal(run: Path, done: int, number: signal.Signals = signal.SIGTERM, **options: Any) -> Stopped:
    toy = regression(**options)
    sent = []

    def send_once(step: int, loss: Tensor) -> Tensor:
        if step == done - 1 and not sent:
            sent.append(os.kill(os.getpid(), number))
        return loss

    toy.spoil = send_once
    with pytest.raises(Stopped) as caught:
        toy.train(run)
    return caught.value


def stop_by_hook(run: Path, done: int, **options: Any) -> None:
    def fail(moment: Moment) -> None:
        if moment.step == done:
            raise RuntimeError("a hook's mistake")

    with pytest.raises(RuntimeError, match="a hook's mistake"):
        regression(**options).train(run, hooks=[fail])


@pytest.mark.parametrize(
    ("stop", "done", "micro_batches"),
    [
        *((stop_by_error, 1, 1), (stop_by_error, 6, 2), (stop_by_error, 11, 1)),
        *((stop_by_signal, 1, 1), (stop_by_signal, 4, 2), (stop_by_signal, 6, 1), (stop_by_signal, 11, 1)),
        *((stop_by_hook, 4, 1), (stop_by_hook, 8, 2)),
    ],
)
def test_resuming_is_bit_for_bit(tmp_path: Path, stop: Callable[..., Any], done: int, micro_batches: int, regression: Make) -> None:
    whole = regression(micro_batches=micro_batches).train(tmp_path / "whole")
    stop(tmp_path / "parts", done, micro_batches=micro_batches)
    assert load_checkpoint(tmp_path / "parts")["step"] == done

    torch.rand(7)  # another process draws from another state
    resumed = regression(micro_batches=micro_batches)
    resumed.model.apply(lambda module: nn.init.ones_(module.weight) if isinstance(module, nn.Linear) else None)
    resumed.train(tmp_path / "parts", resume=True)

    assert resumed.ranges == [range(done, STEPS)], "no batch is made that is not trained on"
    assert_equal(resumed.state(), whole.state())
    assert_equal(load_checkpoint(tmp_path / "parts"), load_checkpoint(tmp_path / "whole"))
    timeless = [
        [{name: value for name, value in row.items() if name != "images_per_second"} for row in read_metrics(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert timeless[0] == timeless[1]


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path, regression: Make) -> None:
    whole = regression().train(tmp_path / "whole")
    stop_by_signal(tmp_path / "killed", 9)
    state = load_checkpoint(tmp_path / "killed")
    # As a kill at step 9 leaves it that was saved last after step 6: the log is ahead of the weights.
    checkpoint, = checkpoints(tmp_path / "killed")
    earlier = whole.states[6]
    torch.save(
        {"step": 6, "model": earlier["model"], "optimizer": state["optimizer"] | {"state": earlier["optimizer"]}},
        checkpoint / "state.pt",
    )
    checkpoint.rename(checkpoint.with_name("step_00000006"))
    assert len(read_metrics(tmp_path / "killed")) == 9

    resumed = regression().train(tmp_path / "killed", resume=True)
    assert_equal(resumed.state(), whole.state())
    rows = [read_metrics(tmp_path / name) for name in ("whole", "killed")]
    assert [row["step"] for row in rows[1]] == list(range(STEPS)), "no step is logged twice"
    assert [row["loss"] for row in rows[1]] == [row["loss"] for row in rows[0]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_that_was_under_way(tmp_path: Path, number: signal.Signals) -> None:
    stopped = stop_by_signal(tmp_path, 5, number)
    assert stopped.signum == number
    assert f"evomask resume {tmp_path}" in str(stopped)
    assert load_checkpoint(tmp_path)["step"] == 5


def test_a_finished_run_resumes_to_itself(tmp_path: Path, regression: Make) -> None:
    whole = regression().train(tmp_path)
    rows = read_metrics(tmp_path)
    moments: list[Moment] = []
    again = regression().train(tmp_path, hooks=[moments.append], resume=True)
    assert again.states == {}
    assert_equal(again.state(), whole.state())
    assert read_metrics(tmp_path) == rows
    assert moments == [Moment(EPOCHS, STEPS, 1.0)]


def test_an_error_before_the_first_step_saves_nothing(tmp_path: Path, regression: Make) -> None:
    toy = regression()
    toy.spoil = raise_at(0, ValueError("no data"))
    with pytest.raises(ValueError, match="no data"):
        toy.train(tmp_path)
    assert checkpoints(tmp_path) == []


def test_another_seed_draws_otherwise(tmp_path: Path, regression: Make) -> None:
    losses = {}
    for name, seed in (("a", 0), ("again", 0), ("b", 1)):
        regression().train(tmp_path / name, seed=seed)
        losses[name] = [row["loss"] for row in read_metrics(tmp_path / name)]
    assert losses["a"] == losses["again"]
    assert losses["a"] != losses["b"]


@pytest.mark.parametrize("name", ["epochs", "batch_size", "micro_batches", "log_every", "keep", "max_nonfinite"])
def test_a_count_of_none_is_refused_by_the_name_of_its_flag(name: str) -> None:
    with pytest.raises(ValueError, match=f"--train.{name.replace('_', '-')} must be at least 1, not 0"):
        TrainConfig(**{name: 0})
