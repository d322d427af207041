"""Gradients of fine-tuning by the depth of the network (the paper's Fig. 11)."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from evomask.figures.style import LINES, styled


@styled
def gradients_by_depth(gradients: Mapping[str, Sequence[float]]) -> Figure:
    """A line a model: the mean absolute gradient of each of its blocks.

    Args:
        gradients: by the model's name, a number a block, the first first.
    """
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    ax = figure.subplots()
    for (name, values), (colour, marker) in zip(gradients.items(), LINES, strict=False):
        ax.plot(range(1, len(values) + 1), values, f"{marker}-", color=colour, markersize=5, label=name)
    ax.set(xlabel="block", ylabel="mean absolute gradient", ylim=(0, None))
    ax.ticklabel_format(axis="y", style="sci", scilimits=(0, 0), useMathText=True)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    if len(gradients) > 1:
        ax.legend(loc="best")
    return figure
