import numpy as np
import pytest

from evomask.figures import curves


def rows(**columns):
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def values(line) -> list[float]:
    return line.get_ydata().tolist()


def test_a_series_leaves_out_what_is_missing_or_not_finite():
    metrics = [{"step": 9, "loss": 2.0}, {"step": 19, "loss": None}, {"step": 29}, {"step": 39, "loss": 1.0}]
    step, loss = curves.series([*metrics, {"step": 49, "loss": float("nan")}], "loss")
    assert step.tolist() == [9, 39] and loss.tolist() == [2, 1]


def test_a_step_that_was_logged_again_counts_once():
    step, loss = curves.series(rows(step=[0, 10, 20, 10], loss=[4.0, 3.0, 2.0, 2.5]), "loss")
    assert step.tolist() == [0, 10, 20] and loss.tolist() == [4, 2.5, 2]


def test_the_running_mean_is_that_of_the_neighbours():
    values = np.random.default_rng(0).normal(size=90)  # a window of 3 to each side
    expected = [values[max(0, i - 3) : i + 4].mean() for i in range(90)]
    assert np.allclose(curves.running_mean(values), expected)


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_short_curve_is_its_own_running_mean(length):
    values = np.arange(length, dtype=float) ** 2
    assert np.allclose(curves.running_mean(values), values)


def test_a_long_curve_is_thinned_by_means():
    step, value = curves.thinned(np.arange(1000.0), np.arange(1000.0) * 3)
    assert len(step) == 400
    assert step[0] == 1.0 and step[1] == 3.5 and (np.diff(step) > 0).all()  # the means of 0, 1, 2 and of 3, 4
    assert np.allclose(value, 3 * step)


def test_the_loss_is_drawn_as_logged_and_smoothed_with_the_stages_marked():
    loss = np.random.default_rng(0).uniform(size=60)
    figure = curves.loss_curve(rows(step=range(60), loss=loss), stages=[0, 30])
    lines = figure.axes[0].lines
    assert [line.get_gid() for line in lines[:2]] == ["stage-0", "stage-1"]
    assert [np.asarray(line.get_xdata())[0] for line in lines[:2]] == [0, 30]
    assert np.allclose(lines[2].get_ydata(), loss)
    assert np.allclose(lines[3].get_ydata(), curves.running_mean(loss))


def test_each_curve_shows_its_values():
    metrics = rows(step=[0, 10], lr=[0.1, 0.2], tree_height=[40.0, 30.0], depth=[1.0, 5.0], largest_group=[0.1, 0.5])
    assert values(curves.learning_rate_curve(metrics).axes[0].lines[-1]) == [0.1, 0.2]
    assert values(curves.group_curve(metrics).axes[0].lines[-1]) == [0.1, 0.5]
    handles, labels = curves.tree_curve(metrics).axes[0].get_legend_handles_labels()
    assert labels == ["height of the tree", "depth of the cut"]
    assert [values(line) for line in handles] == [[40, 30], [1, 5]]
