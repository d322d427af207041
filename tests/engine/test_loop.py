"""The loop against a plain PyTorch loop, and what it promises about skipped steps, hooks, signals and resuming.

The task is a regression with dropout, so that randomness counts: 64 samples, 4 steps an epoch, 3 epochs.
"""

import json
import os
import signal
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evomask.engine.checkpoint import checkpoints, load_checkpoint
from evomask.engine.loop import Hook, Moment, StepResult, Task, TrainConfig, train, use_bfloat16
from evomask.engine.metrics import read_metrics
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.signals import Stopped

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
        self.step, self.calls = -1, 0
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
            steps_per_epoch=STEPS_PER_EPOCH,
            batches=self.batches,
            indices=self.indices,
            step=self.run_step,
            clip_grad=self.clip_grad,
        )
        settings = {"epochs": EPOCHS, "batch_size": BATCH, "log_every": 1, "device": "cpu"} | config
        train(task, TrainConfig(micro_batches=self.micro_batches, **settings), run, hooks or [], resume=resume)
        return self


def spoil_at(kind: str, *steps: int) -> Callable[[int, Tensor], Tensor]:
    """A loss that is NaN or infinite at these steps, or is finite and has a gradient that is NaN."""

    def spoil(step: int, loss: Tensor) -> Tensor:
        if step not in steps:
            return loss
        return {"nan": loss * torch.nan, "inf": loss + torch.inf, "gradient": loss + (loss * 0).sqrt()}[kind]

    return spoil


def plain_loop(toy: Regression, leave_out: tuple[int, ...] = ()) -> list[float]:
    """The same training as a textbook writes it, without dropout; returns the gradient norms before clipping."""
    decaying = [p for p in toy.model.parameters() if p.ndim > 1]
    others = [p for p in toy.model.parameters() if p.ndim == 1]
    groups = [{"params": decaying, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), foreach=False)
    norms = []
    for step in range(STEPS):
        if step in leave_out:
            continue
        for group in optimizer.param_groups:
            group["lr"] = toy.rate(step)
        index = torch.tensor(toy.indices(step))
        optimizer.zero_grad()
        (toy.model(toy.inputs[index]) - toy.targets[index]).square().mean().backward()
        norm = torch.cat([p.grad.flatten() for p in toy.model.parameters() if p.grad is not None]).norm()
        norms.append(norm.item())
        if toy.clip_grad and norm > toy.clip_grad:
            for p in toy.model.parameters():
                assert p.grad is not None
                p.grad *= toy.clip_grad / norm
        optimizer.step()
    return norms


def assert_equal(actual: Any, expected: Any) -> None:
    """Bit for bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def assert_weights_close(toy: Regression, other: Regression) -> None:
    torch.testing.assert_close(toy.model.state_dict(), other.model.state_dict(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip_grad", [None, 15.0])
def test_it_trains_as_a_plain_loop_does(tmp_path: Path, clip_grad: float | None) -> None:
    toy = Regression(dropout=0, clip_grad=clip_grad).train(tmp_path)
    plain = Regression(dropout=0, clip_grad=clip_grad)
    norms = plain_loop(plain)
    assert_weights_close(toy, plain)
    assert min(norms) < 15 < max(norms), "some steps are to be clipped and some are not"
    assert [row["grad_norm"] for row in read_metrics(tmp_path)] == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_give_the_weights_of_the_whole_batch(tmp_path: Path, micro_batches: int) -> None:
    whole = Regression(dropout=0, clip_grad=15.0).train(tmp_path / "whole")
    parts = Regression(dropout=0, clip_grad=15.0, micro_batches=micro_batches).train(tmp_path / "parts")
    assert_weights_close(parts, whole)
    losses = [[row["loss"] for row in read_metrics(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_rate_is_set_at_each_step_and_scaled_in_a_group_that_says_so(tmp_path: Path) -> None:
    toy = Regression()
    toy.optimizer.param_groups[1]["lr_scale"] = 0.5
    toy.train(tmp_path)
    expected = [toy.rate(step) for step in range(STEPS)]
    assert [rates[0] for rates in toy.rates.values()] == expected
    assert [rates[1] for rates in toy.rates.values()] == [0.5 * rate for rate in expected]
    assert [row["lr"] for row in read_metrics(tmp_path)] == expected


def test_a_step_is_told_its_epoch_as_a_share(tmp_path: Path) -> None:
    toy = Regression().train(tmp_path)
    assert list(toy.progress.values()) == [epoch / EPOCHS for epoch in range(EPOCHS) for _ in range(STEPS_PER_EPOCH)]


@pytest.mark.parametrize(("precision", "expected"), [("auto", False), ("float32", False), ("bfloat16", True)])
def test_bfloat16_autocasts_the_step(tmp_path: Path, precision: str, expected: bool) -> None:
    toy = Regression()
    seen = []
    toy.spoil = lambda _, loss: seen.append(torch.is_autocast_enabled("cpu")) or loss
    toy.train(tmp_path, precision=precision)
    assert seen == [expected] * STEPS
    assert all(p.dtype == torch.float32 for p in toy.model.parameters())


@pytest.mark.parametrize("supported", [True, False])
def test_auto_precision_asks_the_gpu(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert use_bfloat16("auto", torch.device("cuda")) is supported
    assert not use_bfloat16("auto", torch.device("cpu"))
    assert not use_bfloat16("float32", torch.device("cuda"))


def test_rows_hold_what_was_promised(tmp_path: Path) -> None:
    toy = Regression(micro_batches=2).train(tmp_path, log_every=5)
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [4, 9, 11], "every fifth step, and the last"
    assert [row["epoch"] for row in rows] == [1, 2, 2]
    assert [row["progress"] for row in rows] == [1 / 3, 2 / 3, 2 / 3]
    for row in rows:
        assert set(row) == {
            *("step", "epoch", "progress", "loss", "lr", "grad_norm", "images_per_second", "skipped_steps", "first_index")
        }
        assert row["images_per_second"] > 0
        firsts = [toy.indices(int(row["step"]))[place] for place in (0, 8)]
        assert row["first_index"] == sum(firsts) / 2, "a task's metrics are means over micro-batches"


def test_hooks_are_called_as_each_epoch_begins_and_once_at_the_end(tmp_path: Path) -> None:
    toy = Regression()
    order: list[tuple[str, Moment]] = []
    seen: list[dict[str, Any]] = []

    def first(moment: Moment) -> None:
        order.append(("first", moment))
        seen.append(toy.state())
        toy.model.eval()

    modes = []
    toy.spoil = lambda _, loss: modes.append(toy.model.training) or loss
    toy.train(tmp_path, hooks=[first, lambda moment: order.append(("second", moment))])

    moments = [Moment(0, 0, 0.0), Moment(1, 4, 1 / 3), Moment(2, 8, 2 / 3), Moment(3, 12, 1.0)]
    assert order == [(name, moment) for moment in moments for name in ("first", "second")]
    for state, step in zip(seen, (0, 4, 8), strict=False):
        assert_equal(state, toy.states[step])
    assert_equal(seen[-1], toy.state())
    assert modes == [True] * STEPS, "a hook that evaluates does not stop the training mode"


@pytest.mark.parametrize(("stop_after", "epochs_begun"), [(3, [1, 2, 3]), (4, [1, 2, 3]), (5, [2, 3]), (11, [3]), (12, [3])])
def test_hooks_after_resuming(tmp_path: Path, stop_after: int, epochs_begun: list[int]) -> None:
    stop_by_signal(tmp_path, stop_after)
    moments: list[Moment] = []
    Regression().train(tmp_path, hooks=[moments.append], resume=True)
    assert [moment.epoch for moment in moments] == epochs_begun
    assert [moment.step for moment in moments] == [STEPS_PER_EPOCH * epoch for epoch in epochs_begun]


def test_checkpoints_are_saved_as_often_as_asked_for_and_at_the_end(tmp_path: Path) -> None:
    Regression().train(tmp_path / "often", save_minutes=0, keep=3)
    assert [path.name[-2:] for path in checkpoints(tmp_path / "often")] == ["10", "11", "12"]
    toy = Regression().train(tmp_path / "once")
    assert [path.name[-2:] for path in checkpoints(tmp_path / "once")] == ["12"]
    saved = load_checkpoint(tmp_path / "once")
    assert saved["step"] == STEPS
    assert_equal({"model": saved["model"], "optimizer": saved["optimizer"]["state"]}, toy.state())


# Steps that are not finite


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("ill", [0, 5, 11])
def test_a_step_that_is_not_finite_is_skipped_and_no_other(tmp_path: Path, kind: str, ill: int) -> None:
    toy = Regression(dropout=0, clip_grad=15.0)
    toy.spoil = spoil_at(kind, ill)
    toy.train(tmp_path)
    states = toy.states | {STEPS: toy.state()}
    for step in range(STEPS):
        before, after = states[step], states[step + 1]
        if step == ill:
            assert_equal(after["model"], before["model"])
        else:
            assert not torch.equal(after["model"]["0.weight"], before["model"]["0.weight"])
    if ill > 0:
        assert_equal(states[ill + 1]["optimizer"], states[ill]["optimizer"])
    assert {moments["step"].item() for moments in states[STEPS]["optimizer"].values()} == {STEPS - 1}

    plain = Regression(dropout=0, clip_grad=15.0)
    plain_loop(plain, leave_out=(ill,))
    assert_weights_close(toy, plain)

    rows = read_metrics(tmp_path)
    assert [row["skipped_steps"] for row in rows] == [int(step >= ill) for step in range(STEPS)]
    assert [row["loss"] is None for row in rows] == [step == ill and kind != "gradient" for step in range(STEPS)]
    assert [row["grad_norm"] is None for row in rows] == [step == ill and kind != "inf" for step in range(STEPS)]


@pytest.mark.parametrize("kind", ["nan", "gradient"])
@pytest.mark.parametrize(("log_every", "ill", "named"), [(1, range(5, 12), [5, 6, 7]), (5, range(5, 12), [5, 6, 7, 8, 9])])
def test_several_in_a_row_stop_the_run_and_name_the_samples(
    tmp_path: Path, kind: str, log_every: int, ill: range, named: list[int]
) -> None:
    toy = Regression()
    toy.spoil = spoil_at(kind, *ill)
    with pytest.raises(ValueError, match=rf"{len(named)} steps in a row, {named[0]} to {named[-1]}.*--optim.base-lr") as caught:
        toy.train(tmp_path, max_nonfinite=3, log_every=log_every)
    path = tmp_path / "nonfinite_batches.json"
    assert str(path) in str(caught.value)
    assert json.loads(path.read_text()) == {str(step): toy.indices(step) for step in named}
    saved = load_checkpoint(tmp_path)
    assert saved["step"] == named[-1] + 1
    assert_equal(saved["model"], toy.states[5]["model"])


def test_a_streak_that_has_ended_stops_the_run_at_the_next_logged_step(tmp_path: Path) -> None:
    toy = Regression()
    toy.spoil = spoil_at("nan", 1, 2, 3)
    with pytest.raises(ValueError, match="3 steps in a row, 1 to 3"):
        toy.train(tmp_path, max_nonfinite=3, log_every=6)
    assert max(toy.states) == 5
    assert list(json.loads((tmp_path / "nonfinite_batches.json").read_text())) == ["1", "2", "3"]


def test_many_that_are_not_in_a_row_do_not_stop_it(tmp_path: Path) -> None:
    toy = Regression()
    toy.spoil = spoil_at("nan", 0, 1, 3, 4, 6, 7, 9, 10)
    toy.train(tmp_path, max_nonfinite=3)
    assert read_metrics(tmp_path)[-1]["skipped_steps"] == 8
    assert not (tmp_path / "nonfinite_batches.json").exists()


# Stopping and going on


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
    toy = Regression(**options)
    toy.spoil = raise_at(done, RuntimeError("a task's own mistake"), toy.micro_batches)
    with pytest.raises(RuntimeError, match="a task's own mistake"):
        toy.train(run)


def stop_by_signal(run: Path, done: int, number: signal.Signals = signal.SIGTERM, **options: Any) -> Stopped:
    toy = Regression(**options)
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
        Regression(**options).train(run, hooks=[fail])


@pytest.mark.parametrize(
    ("stop", "done", "micro_batches"),
    [
        *((stop_by_error, 1, 1), (stop_by_error, 6, 2), (stop_by_error, 11, 1)),
        *((stop_by_signal, 1, 1), (stop_by_signal, 4, 2), (stop_by_signal, 6, 1), (stop_by_signal, 11, 1)),
        *((stop_by_hook, 4, 1), (stop_by_hook, 8, 2)),
    ],
)
def test_resuming_is_bit_for_bit(tmp_path: Path, stop: Callable[..., Any], done: int, micro_batches: int) -> None:
    whole = Regression(micro_batches=micro_batches).train(tmp_path / "whole")
    stop(tmp_path / "parts", done, micro_batches=micro_batches)
    assert load_checkpoint(tmp_path / "parts")["step"] == done

    torch.rand(7)  # another process draws from another state
    resumed = Regression(micro_batches=micro_batches)
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


def test_a_run_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    whole = Regression().train(tmp_path / "whole")
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

    resumed = Regression().train(tmp_path / "killed", resume=True)
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


def test_a_finished_run_resumes_to_itself(tmp_path: Path) -> None:
    whole = Regression().train(tmp_path)
    rows = read_metrics(tmp_path)
    moments: list[Moment] = []
    again = Regression().train(tmp_path, hooks=[moments.append], resume=True)
    assert again.states == {}
    assert_equal(again.state(), whole.state())
    assert read_metrics(tmp_path) == rows
    assert moments == [Moment(EPOCHS, STEPS, 1.0)]


def test_an_error_before_the_first_step_saves_nothing(tmp_path: Path) -> None:
    toy = Regression()
    toy.spoil = raise_at(0, ValueError("no data"))
    with pytest.raises(ValueError, match="no data"):
        toy.train(tmp_path)
    assert checkpoints(tmp_path) == []


def test_another_seed_draws_otherwise(tmp_path: Path) -> None:
    losses = {}
    for name, seed in (("a", 0), ("again", 0), ("b", 1)):
        Regression().train(tmp_path / name, seed=seed)
        losses[name] = [row["loss"] for row in read_metrics(tmp_path / name)]
    assert losses["a"] == losses["again"]
    assert losses["a"] != losses["b"]


@pytest.mark.parametrize("name", ["epochs", "batch_size", "micro_batches", "log_every", "keep", "max_nonfinite"])
def test_a_count_of_none_is_refused_by_the_name_of_its_flag(name: str) -> None:
    with pytest.raises(ValueError, match=f"--train.{name.replace('_', '-')} must be at least 1, not 0"):
        TrainConfig(**{name: 0})
