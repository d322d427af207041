"""The loop against a plain PyTorch loop, and what it tells steps, hooks and the log."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evomask.engine.checkpoint import checkpoints, load_checkpoint
from evomask.engine.loop import FirstProcessHooks, Moment, TrainConfig, use_bfloat16
from evomask.engine.metrics import read_metrics

STEPS_PER_EPOCH, EPOCHS = 4, 3
STEPS = STEPS_PER_EPOCH * EPOCHS
Make = Callable[..., Any]


def assert_equal(actual: Any, expected: Any) -> None:
    """Bit for bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def assert_weights_close(toy: Any, other: Any) -> None:
    torch.testing.assert_close(toy.model.state_dict(), other.model.state_dict(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("clip_grad", [None, 15.0])
def test_it_trains_as_a_plain_loop_does(tmp_path: Path, clip_grad: float | None, regression: Make) -> None:
    toy = regression(dropout=0, clip_grad=clip_grad).train(tmp_path)
    plain = regression(dropout=0, clip_grad=clip_grad)
    norms = plain.train_plainly()
    assert_weights_close(toy, plain)
    assert min(norms) < 15 < max(norms), "some steps are to be clipped and some are not"
    assert [row["grad_norm"] for row in read_metrics(tmp_path)] == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize("micro_batches", [2, 4])
def test_micro_batches_give_the_weights_of_the_whole_batch(tmp_path: Path, micro_batches: int, regression: Make) -> None:
    whole = regression(dropout=0, clip_grad=15.0).train(tmp_path / "whole")
    parts = regression(dropout=0, clip_grad=15.0, micro_batches=micro_batches).train(tmp_path / "parts")
    assert_weights_close(parts, whole)
    losses = [[row["loss"] for row in read_metrics(tmp_path / name)] for name in ("whole", "parts")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


def test_the_rate_is_set_at_each_step_and_scaled_in_a_group_that_says_so(tmp_path: Path, regression: Make) -> None:
    toy = regression()
    toy.optimizer.param_groups[1]["lr_scale"] = 0.5
    toy.train(tmp_path)
    expected = [toy.rate(step) for step in range(STEPS)]
    assert [rates[0] for rates in toy.rates.values()] == expected
    assert [rates[1] for rates in toy.rates.values()] == [0.5 * rate for rate in expected]
    assert [row["lr"] for row in read_metrics(tmp_path)] == expected


def test_a_step_is_told_its_epoch_as_a_share(tmp_path: Path, regression: Make) -> None:
    toy = regression().train(tmp_path)
    assert list(toy.progress.values()) == [epoch / EPOCHS for epoch in range(EPOCHS) for _ in range(STEPS_PER_EPOCH)]


@pytest.mark.parametrize(("precision", "expected"), [("auto", False), ("float32", False), ("bfloat16", True)])
def test_bfloat16_autocasts_the_step(tmp_path: Path, precision: str, expected: bool, regression: Make) -> None:
    toy = regression()
    seen = []
    toy.spoil = lambda _, loss: seen.append(torch.is_autocast_enabled("cpu")) or loss
    toy.train(tmp_path, precision=precision)
    assert seen == [expected] * STEPS
    assert all(p.dtype == torch.float32 for p in toy.model.parameters())


@pytest.mark.parametrize("supported", [True, False])
def test_auto_precision_asks_the_gpu(monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or supported)
    assert use_bfloat16("auto", torch.device("cuda")) is supported
    assert not use_bfloat16("auto", torch.device("cpu"))
    assert not use_bfloat16("float32", torch.device("cuda"))


def test_looks_compile_nothing(regression: Make) -> None:
    """They have shapes of their own."""
    compiled = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Any:
        compiled.append(graph)
        return graph.forward

    model = regression().model
    model.compile(backend=backend)
    looks = FirstProcessHooks([lambda _: model(torch.zeros(5, 6))], model, model)
    looks(Moment(0, 0, 0.0))
    assert not compiled
    model(torch.zeros(5, 6))
    assert len(compiled) == 1


def test_rows_hold_what_was_promised(tmp_path: Path, regression: Make) -> None:
    toy = regression(micro_batches=2).train(tmp_path, log_every=5)
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


def test_hooks_are_called_as_each_epoch_begins_and_once_at_the_end(tmp_path: Path, regression: Make) -> None:
    toy = regression()
    order: list[tuple[str, Moment]] = []
    seen: list[dict[str, Any]] = []

    def first(moment: Moment) -> None:
        order.append(("first", moment))
        seen.append(toy.state())
        toy.model.eval()

    modes = []
    toy.spoil = lambda _, loss: modes.append(toy.model.training) or loss
    toy.train(tmp_path, hooks=[first, lambda moment: order.append(("second", moment))])

    moments = [Moment(0, 0, 0.0), Moment(1, 4, 1 / 3), Moment(2, 8, 2 / 3), Moment(3, 12, 2 / 3)]
    assert order == [(name, moment) for moment in moments for name in ("first", "second")]
    for state, step in zip(seen, (0, 4, 8), strict=False):
        assert_equal(state, toy.states[step])
    assert_equal(seen[-1], toy.state())
    assert modes == [True] * STEPS, "a hook that evaluates does not stop the training mode"


def test_hooks_and_checkpoints_do_not_count_in_images_a_second(
    tmp_path: Path, regression: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0

    def takes(seconds: float, result: Any = None) -> Any:
        nonlocal now
        now += seconds
        return result

    monkeypatch.setattr("evomask.engine.loop.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("evomask.engine.loop.CheckpointWriter.save", lambda *_: takes(50.0))
    toy = regression()
    toy.spoil = lambda _, loss: takes(2.0, loss)
    toy.train(tmp_path, hooks=[lambda _: takes(100.0)], save_minutes=0, log_every=3)
    assert [row["images_per_second"] for row in read_metrics(tmp_path)] == [8.0] * 4, "16 images in 2 seconds"


def test_checkpoints_are_saved_as_often_as_asked_for_and_at_the_end(tmp_path: Path, regression: Make) -> None:
    regression().train(tmp_path / "often", save_minutes=0, keep=3)
    assert [path.name[-2:] for path in checkpoints(tmp_path / "often")] == ["10", "11", "12"]
    toy = regression().train(tmp_path / "once")
    assert [path.name[-2:] for path in checkpoints(tmp_path / "once")] == ["12"]
    saved = load_checkpoint(tmp_path / "once")
    assert saved["step"] == STEPS
    assert_equal(saved["model"], dict(toy.model.state_dict()))
    assert_equal(saved["optimizer"], {name: toy.optimizer.state[weight] for name, weight in toy.model.named_parameters()})


def test_another_seed_draws_otherwise(tmp_path: Path, regression: Make) -> None:
    losses = {}
    for name, seed in (("a", 0), ("again", 0), ("b", 1)):
        regression().train(tmp_path / name, seed=seed)
        losses[name] = [row["loss"] for row in read_metrics(tmp_path / name)]
    assert losses["a"] == losses["again"]
    assert losses["a"] != losses["b"]


@pytest.mark.parametrize("name", ["epochs", "batch_size", "micro_batches", "log_every", "keep", "max_nonfinite"])
def test_a_count_of_none_is_refused_by_the_name_of_its_flag(name: str) -> None:
    with pytest.raises(ValueError, match=f"--loop.{name.replace('_', '-')}, must be at least 1, not 0"):
        TrainConfig(**{name: 0})  # type: ignore[arg-type]
