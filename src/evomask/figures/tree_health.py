"""Health of the trees at the stages of a training: whether they are balanced, and how much of an image one group holds.

Each function takes the rows of `health_by_stage`, one a stage.
"""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evomask.figures.style import BLUE, FAINT, GREEN, PURPLE, VERMILLION, styled

Rows = Sequence[Mapping[str, float]]


@styled
def tree_health_curves(rows: Rows) -> Figure:
    """Both of those below, beside each other."""
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_balance(left, rows)
    _draw_largest_groups(right, rows)
    return figure


@styled
def balance_curve(rows: Rows) -> Figure:
    """Merges between a patch and the root, in units of what a balanced tree has."""
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    _draw_balance(figure.subplots(), rows)
    return figure


@styled
def largest_group_curves(rows: Rows) -> Figure:
    """The share of the image that the largest group holds, at three depths."""
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    _draw_largest_groups(figure.subplots(), rows)
    return figure


def _draw_balance(ax: Axes, rows: Rows) -> None:
    ax.plot([row["step"] for row in rows], [row["balance"] for row in rows], "o-", color=GREEN, markersize=4)
    ax.axhline(1, color=FAINT, linewidth=1, linestyle="--", label="balanced tree")
    ax.set(xlabel="step", ylabel="merges above a patch, over log₂ N", ylim=(0, None))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.legend(loc="best", fontsize=7)


def _draw_largest_groups(ax: Axes, rows: Rows) -> None:
    step = [row["step"] for row in rows]
    for percent, colour, marker in ((75, VERMILLION, "o"), (50, PURPLE, "s"), (25, BLUE, "^")):
        share = [row[f"largest_group_{percent}"] for row in rows]
        ax.plot(step, share, f"{marker}-", color=colour, markersize=4, label=f"cut at {percent}% of the height")
    ax.set(xlabel="step", ylabel="largest group", ylim=(0, 1))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="best", fontsize=7)
