"""Health of the trees at the stages of a training: whether they are balanced, and how much of an image one group holds."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from evomask.figures.style import BLUE, FAINT, GREEN, PURPLE, VERMILLION, styled


@styled
def tree_health_curves(rows: Sequence[Mapping[str, float]]) -> Figure:
    """Balance on the left; on the right the share of the image in the largest group, at three depths.

    Args:
        rows: one a stage, see `health_by_stage`.
    """
    figure = Figure(figsize=(7.6, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    step = [row["step"] for row in rows]
    left.plot(step, [row["balance"] for row in rows], "o-", color=GREEN, markersize=4)
    left.axhline(1, color=FAINT, linewidth=1, linestyle="--", label="balanced tree")
    left.legend(loc="best", fontsize=7)
    left.set(ylabel="merges above a patch, over log₂ N", ylim=(0, None))
    for percent, colour, marker in ((75, VERMILLION, "o"), (50, PURPLE, "s"), (25, BLUE, "^")):
        share = [row[f"largest_group_{percent}"] for row in rows]
        right.plot(step, share, f"{marker}-", color=colour, markersize=4, label=f"cut at {percent}% of the height")
    right.set(ylabel="largest group", ylim=(0, 1))
    right.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    right.legend(loc="best", fontsize=7)
    for ax in (left, right):
        ax.set_xlabel("step")
        ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    return figure
