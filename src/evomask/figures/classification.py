"""How a classifier errs: which classes it takes for which, and whether its confidence can be trusted."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from evomask.figures.style import BLUE, FAINT, INK, styled

_MOST_NAMES = 40
"""Classes whose names can be read along an axis."""


@styled
def confusion_matrix(confusion: Tensor, classes: Sequence[str]) -> Figure:
    """Shares of each class's images, row: what they are, column: what they are taken for.

    Args:
        confusion: (C, C) counts.
        classes: C names.
    """
    side = min(8.0, 2.5 + 0.3 * len(classes))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    ax = figure.subplots()
    share = confusion / confusion.sum(dim=1, keepdim=True).clamp(min=1)
    picture = ax.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    ax.grid(visible=False)
    ax.set(xlabel="taken for", ylabel="class")
    if len(classes) <= _MOST_NAMES:
        ax.set_xticks(range(len(classes)), classes, rotation=90)
        ax.set_yticks(range(len(classes)), classes)
    if len(classes) <= _MOST_NAMES // 2:
        for row, shares in enumerate(share.tolist()):
            for column, value in enumerate(shares):
                colour = "white" if value > 0.5 else INK
                text = f"{100 * value:.0f}" if value >= 0.005 else ""
                ax.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(picture, ax=ax, shrink=0.6, format=PercentFormatter(1), label="of the class")
    return figure


@styled
def calibration(logits: Tensor, labels: Tensor, bins: int) -> Figure:
    """Accuracy by confidence: on the diagonal, of the images that the classifier is 80% sure of, it has 80% right.

    Args:
        logits: (n, C).
        labels: (n,) long.
        bins: of confidence.
    """
    confidence, predicted = logits.softmax(dim=1).max(dim=1)
    number = (confidence * bins).long().clamp(max=bins - 1)
    count = torch.zeros(bins).scatter_add(0, number, torch.ones_like(confidence))
    accuracy = torch.zeros(bins).scatter_add(0, number, (predicted == labels).float()) / count.clamp(min=1)

    figure = Figure(figsize=(4.2, 4.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    middle = ((torch.arange(bins) + 0.5) / bins).numpy()
    seen = (count > 0).numpy()
    above.plot((0, 1), (0, 1), color=FAINT, linewidth=1, linestyle="--")
    above.bar(middle[seen], accuracy.numpy()[seen], width=0.9 / bins, color=BLUE)
    above.set(ylabel="accuracy", ylim=(0, 1), xlim=(0, 1))
    below.bar(middle, (count / len(labels)).numpy(), width=0.9 / bins, color=FAINT)
    below.set(xlabel="confidence", ylabel="of the images")
    for axis in (above.yaxis, below.yaxis, below.xaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    return figure
