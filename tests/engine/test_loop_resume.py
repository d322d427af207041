"""A run that stopped, for whatever reason and at whatever step, goes on as if nothing had happened."""

import os
import shutil
import signal
from collections.abc import Callable, Iterator
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


def raise_at(step: int, error: BaseException, micro_batch: int = 1) -> Callable[[int, Tensor], Tensor]:
    seen = []

    def spoil(at: int, loss: Tensor) -> Tensor:
        seen.append(at)
        if seen.count(step) == micro_batch:
            raise error
        return loss

    return spoil


def stop_by_error(toy: Any, run: Path, done: int) -> None:
    """Die in the middle of a step, in the last of its micro-batches."""
    toy.spoil = raise_at(done, RuntimeError("a task's own mistake"), toy.micro_batches)
    with pytest.raises(RuntimeError, match="a task's own mistake"):
        toy.train(run)


def stop_by_signal(toy: Any, run: Path, done: int, number: signal.Signals = signal.SIGTERM) -> Stopped:
    sent = []

    def send_once(step: int, loss: Tensor) -> Tensor:
        if step == done - 1 and not sent:
            sent.append(os.kill(os.getpid(), number))
        return loss

    toy.spoil = send_once
    with pytest.raises(Stopped) as caught:
        toy.train(run)
    return caught.value


def stop_by_hook(toy: Any, run: Path, done: int) -> None:
    def fail(moment: Moment) -> None:
        if moment.step == done:
            raise RuntimeError("a hook's mistake")

    with pytest.raises(RuntimeError, match="a hook's mistake"):
        toy.train(run, hooks=[fail])


@pytest.mark.parametrize(
    ("stop", "done", "micro_batches"),
    [
        *((stop_by_error, 1, 1), (stop_by_error, 6, 2), (stop_by_error, 11, 1)),
        *((stop_by_signal, 1, 1), (stop_by_signal, 4, 2), (stop_by_signal, 6, 1), (stop_by_signal, 11, 1)),
        *((stop_by_hook, 4, 1), (stop_by_hook, 8, 2)),
    ],
)
def test_resuming_is_bit_for_bit(
    tmp_path: Path, regression: Make, stop: Callable[[Any, Path, int], Any], done: int, micro_batches: int
) -> None:
    whole = regression(micro_batches=micro_batches).train(tmp_path / "whole")
    stop(regression(micro_batches=micro_batches), tmp_path / "parts", done)
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
    stop_by_signal(regression(), tmp_path / "killed", 9)
    # As a kill at step 9 leaves it that was saved last after step 6: the log is ahead of the weights.
    (checkpoint,) = checkpoints(tmp_path / "killed")
    shutil.rmtree(checkpoint)
    stop_by_signal(regression(), tmp_path / "earlier", 6)
    checkpoints(tmp_path / "earlier")[0].rename(checkpoint.with_name("step_00000006"))
    assert len(read_metrics(tmp_path / "killed")) == 9

    resumed = regression().train(tmp_path / "killed", resume=True)
    assert_equal(resumed.state(), whole.state())
    rows = [read_metrics(tmp_path / name) for name in ("whole", "killed")]
    assert [row["step"] for row in rows[1]] == list(range(STEPS)), "no step is logged twice"
    assert [row["loss"] for row in rows[1]] == [row["loss"] for row in rows[0]]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_that_was_under_way(tmp_path: Path, regression: Make, number: signal.Signals) -> None:
    stopped = stop_by_signal(regression(), tmp_path, 5, number)
    assert stopped.signum == number
    assert f"evomask resume {tmp_path}" in str(stopped)
    assert load_checkpoint(tmp_path)["step"] == 5


def test_a_signal_that_ends_the_loaders_processes_first_is_a_signal(
    tmp_path: Path, regression: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy = regression()
    plain_batches = toy.batches

    def batches(steps: range) -> Iterator[Any]:
        for step, batch in zip(steps, plain_batches(steps), strict=True):
            if step == 6:
                os.kill(os.getpid(), signal.SIGTERM)
                raise ValueError("a process that loads images died")
            yield batch

    monkeypatch.setattr(toy, "batches", batches)
    with pytest.raises(Stopped, match="stopped by SIGTERM after 6 steps, all saved"):
        toy.train(tmp_path / "parts")
    whole = regression().train(tmp_path / "whole")
    assert_equal(regression().train(tmp_path / "parts", resume=True).state(), whole.state())


def test_a_finished_run_resumes_to_itself(tmp_path: Path, regression: Make) -> None:
    whole = regression().train(tmp_path)
    rows = read_metrics(tmp_path)
    moments: list[Moment] = []
    again = regression().train(tmp_path, hooks=[moments.append], resume=True)
    assert again.states == {}
    assert_equal(again.state(), whole.state())
    assert read_metrics(tmp_path) == rows
    assert moments == [Moment(EPOCHS, STEPS, (EPOCHS - 1) / EPOCHS)]


def test_an_error_before_the_first_step_saves_nothing(tmp_path: Path, regression: Make) -> None:
    toy = regression()
    toy.spoil = raise_at(0, ValueError("no data"))
    with pytest.raises(ValueError, match="no data"):
        toy.train(tmp_path)
    assert checkpoints(tmp_path) == []


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(tmp_path: Path, regression: Make) -> None:
    whole = regression().train(tmp_path / "whole")
    toy = regression()
    toy.spoil = raise_at(7, KeyboardInterrupt())  # nothing is saved, as after a kill
    with pytest.raises(KeyboardInterrupt):
        toy.train(tmp_path / "killed")
    assert checkpoints(tmp_path / "killed") == []
    assert len(read_metrics(tmp_path / "killed")) == 7

    resumed = regression().train(tmp_path / "killed", resume=True)
    assert_equal(resumed.state(), whole.state())
    assert [row["step"] for row in read_metrics(tmp_path / "killed")] == list(range(STEPS))


def test_half_a_step_is_not_saved(tmp_path: Path, regression: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The death of a loader's process is raised at any line, also while the weights are being changed."""
    whole = regression().train(tmp_path / "whole")
    toy = regression()

    def step_and_die() -> None:
        plain_step()
        if toy.step_began == 6:
            raise RuntimeError("DataLoader worker is killed by signal")

    plain_step = toy.optimizer.step
    monkeypatch.setattr(toy.optimizer, "step", step_and_die)
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        toy.train(tmp_path / "parts")
    assert checkpoints(tmp_path / "parts") == []
    assert_equal(regression().train(tmp_path / "parts", resume=True).state(), whole.state())


@pytest.mark.parametrize(("stop_after", "epochs_begun"), [(3, [1, 2, 3]), (4, [1, 2, 3]), (5, [2, 3]), (11, [3]), (12, [3])])
def test_hooks_after_resuming(tmp_path: Path, regression: Make, stop_after: int, epochs_begun: list[int]) -> None:
    stop_by_signal(regression(), tmp_path, stop_after)
    moments: list[Moment] = []
    regression().train(tmp_path, hooks=[moments.append], resume=True)
    assert [moment.epoch for moment in moments] == epochs_begun
    assert [moment.step for moment in moments] == [STEPS_PER_EPOCH * epoch for epoch in epochs_begun]


def test_a_run_is_held_to_the_samples_that_it_began_with(tmp_path: Path, regression: Make) -> None:
    stop_by_signal(regression(), tmp_path, 5)
    toy = regression()
    toy.inputs, toy.targets = toy.inputs[:48], toy.targets[:48]
    with pytest.raises(ValueError, match=r"began with 64 samples and its data has 48 now: put back what it had, or start anew"):
        toy.train(tmp_path, resume=True)
    assert len(read_metrics(tmp_path)) == 5
    regression().train(tmp_path, resume=True)
    assert len(read_metrics(tmp_path)) == STEPS
