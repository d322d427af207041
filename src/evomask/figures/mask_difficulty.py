"""How hard masks are to see through, by the depth at which they are cut."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from evomask.figures.style import FAINT, LINES, styled


@styled
def mask_difficulty(losses: Mapping[str, Tensor], depths: Sequence[float]) -> Figure:
    """A line a model: its loss, mean over images, with a band of one standard error where there are several.

    Args:
        losses: by the model's name (depths, images).
        depths: shares of the trees' heights, in ascending order, the first 0: a random mask.
    """
    figure = Figure(figsize=(4.6, 3.0), layout="constrained")
    ax = figure.subplots()
    for (name, loss_DB), (colour, marker) in zip(losses.items(), LINES, strict=False):
        values = loss_DB.double().cpu().numpy()
        mean = values.mean(axis=1)
        ax.plot(depths, mean, f"{marker}-", color=colour, markersize=4, label=name if len(losses) > 1 else "evolved mask")
        if values.shape[1] > 1:
            error = values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
            ax.fill_between(depths, mean - error, mean + error, color=colour, alpha=0.15, linewidth=0)
        if len(losses) == 1:
            ax.axhline(mean[0], color=FAINT, linewidth=1, linestyle="--", label="random mask")
    ax.set(xlabel="depth of the cut, share of the tree's height", ylabel="loss on hidden patches", xlim=(-0.02, 1.02))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.legend(loc="best", fontsize=7)
    return figure
