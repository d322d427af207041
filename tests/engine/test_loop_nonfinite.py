"""A step whose loss or gradient is not finite is left out; several in a row stop the run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.metrics import read_metrics

STEPS = 12
Make = Callable[..., Any]


def assert_equal(actual: Any, expected: Any) -> None:
    """Bit for bit."""
    torch.testing.assert_close(actual, expected, rtol=0, atol=0)


def spoil_at(kind: str, *steps: int) -> Callable[[int, Tensor], Tensor]:
    """A loss that is NaN or infinite at these steps, or is finite and has a gradient that is NaN."""

    def spoil(step: int, loss: Tensor) -> Tensor:
        if step not in steps:
            return loss
        return {"nan": loss * torch.nan, "inf": loss + torch.inf, "gradient": loss + (loss * 0).sqrt()}[kind]

    return spoil


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient"])
@pytest.mark.parametrize("ill", [0, 5, 11])
def test_a_step_that_is_not_finite_is_skipped_and_no_other(tmp_path: Path, kind: str, ill: int, regression: Make) -> None:
    toy = regression(dropout=0, clip_grad=15.0)
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

    plain = regression(dropout=0, clip_grad=15.0)
    plain.train_plainly(leave_out=(ill,))
    torch.testing.assert_close(toy.model.state_dict(), plain.model.state_dict(), rtol=0, atol=1e-6)

    rows = read_metrics(tmp_path)
    assert [row["skipped_steps"] for row in rows] == [int(step >= ill) for step in range(STEPS)]
    assert ["loss" not in row for row in rows] == [step == ill and kind != "gradient" for step in range(STEPS)]
    assert ["grad_norm" not in row for row in rows] == [step == ill and kind != "inf" for step in range(STEPS)]


@pytest.mark.parametrize("kind", ["nan", "gradient"])
@pytest.mark.parametrize(("log_every", "ill", "named"), [(1, range(5, 12), [5, 6, 7]), (5, range(5, 12), [5, 6, 7, 8, 9])])
def test_several_in_a_row_stop_the_run_and_name_the_samples(
    tmp_path: Path, regression: Make, kind: str, log_every: int, ill: range, named: list[int]
) -> None:
    toy = regression()
    toy.spoil = spoil_at(kind, *ill)
    with pytest.raises(ValueError, match=rf"{len(named)} steps in a row, {named[0]} to {named[-1]}.*--optim.base-lr") as caught:
        toy.train(tmp_path, max_nonfinite=3, log_every=log_every)
    path = tmp_path / "nonfinite_batches.json"
    assert str(path) in str(caught.value)
    assert json.loads(path.read_text()) == {str(step): toy.indices(step) for step in named}
    saved = load_checkpoint(tmp_path)
    assert saved["step"] == named[-1] + 1
    assert_equal(saved["model"], toy.states[5]["model"])


def test_a_streak_that_has_ended_stops_the_run_at_the_next_logged_step(tmp_path: Path, regression: Make) -> None:
    toy = regression()
    toy.spoil = spoil_at("nan", 1, 2, 3)
    with pytest.raises(ValueError, match="3 steps in a row, 1 to 3"):
        toy.train(tmp_path, max_nonfinite=3, log_every=6)
    assert max(toy.states) == 5
    assert list(json.loads((tmp_path / "nonfinite_batches.json").read_text())) == ["1", "2", "3"]


def test_many_that_are_not_in_a_row_do_not_stop_it(tmp_path: Path, regression: Make) -> None:
    toy = regression()
    toy.spoil = spoil_at("nan", 0, 1, 3, 4, 6, 7, 9, 10)
    toy.train(tmp_path, max_nonfinite=3)
    assert read_metrics(tmp_path)[-1]["skipped_steps"] == 8
    assert not (tmp_path / "nonfinite_batches.json").exists()
