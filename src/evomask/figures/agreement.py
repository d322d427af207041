"""Agreement of trees with labels through a pretraining, beside trees that no model has a part in."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from evomask.figures.style import FAINT, INK, LINES, styled

Curve = Sequence[tuple[np.ndarray, np.ndarray]]
"""Of each seed, the shares of training that are over, in ascending order, and what was measured there."""


@styled
def agreement_curves(panels: Mapping[str, Mapping[str, Curve]], levels: Mapping[str, float], label: str) -> Figure:
    """A panel an affinity; in it a line a kind of masks, the mean over seeds, and a pale one for each seed.

    Args:
        panels: by the affinity, by the kind of masks.
        levels: what trees without a model have, by what they are made of: dashed lines.
        label: of the vertical axis.
    """
    figure = Figure(figsize=(0.9 + 2.9 * len(panels), 3.2), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    place = np.linspace(0, 1, 61)
    for ax, (affinity, kinds) in zip(axes, panels.items(), strict=True):
        ax.set_title(f"affinity: {affinity}")
        for (name, seeds), (colour, marker) in zip(kinds.items(), LINES, strict=False):
            for share, value in seeds:
                ax.plot(share, value, f"{marker}-", color=colour, alpha=0.35, linewidth=0.9, markersize=3)
            mean = np.mean([np.interp(place, *seed) for seed in seeds], axis=0)
            ax.plot(place, mean, color=colour, label=name)
        for name, level in levels.items():
            ax.axhline(level, color=FAINT, linewidth=1, linestyle="--")
            ax.annotate(name, (0, level), (2, 1.5), textcoords="offset points", color=INK, fontsize=6.5, va="bottom")
        ax.set(xlabel="training", xlim=(0, 1))
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes[0].set_ylabel(label)
    axes[-1].legend(loc="lower right", fontsize=7, frameon=True, framealpha=0.9, edgecolor="none")  # lines may run below it
    return figure
