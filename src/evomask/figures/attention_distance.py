"""How far the heads of each block look (the paper's Fig. 2b, head by head)."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from evomask.analysis.attention_distance import mean_attention_distance
from evomask.figures.style import FAINT, LINES, styled


@styled
def attention_distances(distances: Mapping[str, Tensor], grid: tuple[int, int], patch: int) -> Figure:
    """A line a model through the means of its blocks, a dot a head; a dashed line is where attention is the same everywhere.

    Args:
        distances: by the model's name (blocks, heads), in sides of a patch.
        grid: rows and columns of patches.
        patch: side of a patch in pixels, for the axis on the right.
    """
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    ax = figure.subplots()
    patches = grid[0] * grid[1]
    even = mean_attention_distance(torch.ones(patches, patches), grid).item()
    most = max(each.shape[0] for each in distances.values())
    ax.axhline(even, color=FAINT, linewidth=1, linestyle="--", label="even attention")
    for (name, distance_LH), (colour, marker) in zip(distances.items(), LINES, strict=False):
        block = np.arange(1, len(distance_LH) + 1)
        values = distance_LH.cpu().numpy()
        ax.plot(block, values, marker, color=colour, markersize=3, alpha=0.35, markeredgewidth=0)
        ax.plot(
            block,
            values.mean(axis=1),
            f"{marker}-",
            color=colour,
            markersize=5,
            label=name if len(distances) > 1 else "mean of the heads",
        )
    ax.set(xlabel="block", ylabel="mean attention distance, patches", xlim=(0.5, most + 0.5))
    ax.set_ylim(0, 1.08 * max(even, *(each.max().item() for each in distances.values())))
    ax.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True))
    of_patches, of_pixels = partial(np.multiply, patch), partial(np.multiply, 1 / patch)
    pixels = ax.secondary_yaxis("right", functions=(of_patches, of_pixels))
    pixels.set_ylabel("pixels")
    ax.legend(loc="best", fontsize=7)
    return figure
