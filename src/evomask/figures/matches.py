"""Patches of two images that match, joined by lines (the paper's Fig. 3c)."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import Tensor

from evomask.figures.style import GROUP_COLOURS, caption, draw_picture, picture_table, styled, to_rgb


@styled
def matched_patches(originals: Tensor, first: Tensor, second: Tensor, grid: tuple[int, int], similarity: Tensor) -> Figure:
    """Two images side by side; a line joins the middles of each pair of patches, its colour that of the place on the left.

    Args:
        originals: (2, C, H, W) uint8.
        first: (n,) patches of the first image.
        second: (n,) the patches of the second that they match.
        grid: rows and columns of patches.
        similarity: (n,) of the pairs; the less, the paler the line.
    """
    figure, axes = picture_table(1, 2, grid, cell=3.2)
    left, right = axes[0]
    for ax, picture in zip((left, right), to_rgb(originals), strict=True):
        draw_picture(ax, picture, grid)
    strength = similarity.clamp(min=0).numpy()
    strength = strength / max(strength.max(initial=0), 1e-9)
    for one, other, alpha in zip(first.tolist(), second.tolist(), strength.tolist(), strict=True):
        start, end = ((patch % grid[1] + 0.5, patch // grid[1] + 0.5) for patch in (one, other))
        colour = GROUP_COLOURS(np.hypot(start[0] / grid[1], start[1] / grid[0]) / np.sqrt(2))
        line = ConnectionPatch(
            start, end, "data", "data", axesA=left, axesB=right, color=colour, linewidth=1.1, alpha=0.25 + 0.75 * alpha
        )
        figure.add_artist(line)
        for ax, (x, y) in ((left, start), (right, end)):
            ax.plot(x, y, marker="o", markersize=2.5, color=colour)
    caption(left, f"{len(first)} pairs of patches, each the other's nearest")
    return figure
