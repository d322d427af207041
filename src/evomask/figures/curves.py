"""How a run went: the loss, the learning rate, and the health of the trees that the masks are cut from.

Each function takes the rows of metrics.jsonl, one a logged step. Rows without the values in question are passed over. A
light line is what was logged, the full one over it the running mean.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evomask.figures.style import BLUE, FAINT, GREEN, LINES, VERMILLION, styled

Metrics = Sequence[Mapping[str, Any]]
_MOST_POINTS = 400
_FEW = 25


@styled
def loss_curve(metrics: Metrics, stages: Sequence[int] = ()) -> Figure:
    """The loss.

    Args:
        metrics: rows with step and loss.
        stages: steps to mark with a vertical line each, in an SVG the elements "stage-0", "stage-1", ...
    """
    figure, ax = _axes("loss")
    for number, stage in enumerate(stages):
        ax.axvline(stage, color=FAINT, linewidth=0.8, alpha=0.5, gid=f"stage-{number}")
    _plot(ax, *series(metrics, "loss"), BLUE)
    return figure


@styled
def learning_rate_curve(metrics: Metrics) -> Figure:
    """The learning rate; rows with step and lr."""
    figure, ax = _axes("learning rate")
    ax.plot(*thinned(*series(metrics, "lr")), color=BLUE)
    ax.set_ylim(bottom=0)
    ax.yaxis.set_major_formatter("{x:g}")
    return figure


@styled
def tree_curve(metrics: Metrics) -> Figure:
    """Height of the trees and the depth of the cut, mean over the batch; rows with step, tree_height and depth."""
    figure, ax = _axes("level")
    _plot(ax, *series(metrics, "tree_height"), GREEN, "height of the tree")
    _plot(ax, *series(metrics, "depth"), VERMILLION, "depth of the cut")
    ax.set_ylim(bottom=0)
    ax.legend(loc="best")
    return figure


@styled
def group_curve(metrics: Metrics) -> Figure:
    """Share of an image that the largest group of the cut holds, mean over the batch; rows with step, largest_group."""
    figure, ax = _axes("largest group")
    _plot(ax, *series(metrics, "largest_group"), VERMILLION)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure


@styled
def monitor_curve(rows: Metrics, name: str, label: str) -> Figure:
    """One measurement of the model in training; rows of monitor.jsonl, one a look."""
    figure, ax = _axes(label)
    ax.plot(*series(rows, name), color=GREEN, marker="o", markersize=4)
    return figure


@styled
def compared_curve(runs: Mapping[str, Metrics], name: str, label: str) -> Figure:
    """The same measurement of several runs, by their names; of what is logged often the running mean alone."""
    figure, ax = _axes(label)
    for (run, rows), (colour, marker) in zip(runs.items(), LINES, strict=False):
        step, value = series(rows, name)
        if len(step) > _FEW:
            ax.plot(*thinned(step, running_mean(value)), color=colour, label=run)
        elif len(step):
            ax.plot(step, value, f"{marker}-", color=colour, markersize=4, label=run)
    ax.legend(loc="best", fontsize=7)
    return figure


def series(metrics: Metrics, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps in ascending order, and the values logged there; left out where there is none or it is not finite."""
    pairs = {row["step"]: value for row in metrics if (value := row.get(name)) is not None and math.isfinite(value)}
    steps = sorted(pairs)
    return np.array(steps, dtype=float), np.array([pairs[step] for step in steps], dtype=float)


def running_mean(values: np.ndarray) -> np.ndarray:
    """The mean over a centred window of a fifteenth of the curve, shorter at both ends."""
    reach = len(values) // 30
    total = np.concatenate([[0], np.cumsum(values)])
    first, last = np.arange(len(values)) - reach, np.arange(len(values)) + reach + 1
    first, last = first.clip(min=0), last.clip(max=len(values))
    return (total[last] - total[first]) / (last - first)


def thinned(step: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most 400 points, each the mean of its neighbours, so that a long run is as quick to draw as a short one."""
    if len(step) <= _MOST_POINTS:
        return step, value
    part = np.arange(len(step)) * _MOST_POINTS // len(step)
    count = np.bincount(part)
    return np.bincount(part, step) / count, np.bincount(part, value) / count


def _plot(ax: Axes, step: np.ndarray, value: np.ndarray, colour: str, label: str | None = None) -> None:
    ax.plot(*thinned(step, value), color=colour, alpha=0.3, linewidth=1)
    ax.plot(*thinned(step, running_mean(value)), color=colour, label=label)


def _axes(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    ax = figure.subplots()
    ax.set(xlabel="step", ylabel=label)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return figure, ax
