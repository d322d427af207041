"""Masks of the same images at several stages of training (the paper's Fig. 7)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb as rgb_of
from matplotlib.figure import Figure
from torch import Tensor

from evomask.analysis.snapshot import Snapshot
from evomask.figures.style import COVERED, caption, draw_picture, picture_table, styled, to_rgb
from evomask.masking import Mask


def mask_stages(images: Tensor, snapshots: Sequence[Snapshot]) -> Figure:
    """A row an image, a column a stage.

    Args:
        images: (n, C, H, W) uint8.
        snapshots: of these images, in the order of training.
    """
    titles = [f"epoch {stage.epoch}\n{stage.progress:.0%} of training" for stage in snapshots]
    masks = [Mask(stage.masked, int(stage.masked[0].sum()), stage.hierarchy, stage.depth) for stage in snapshots]
    return mask_columns(images, dict(zip(titles, masks, strict=True)), snapshots[0].grid)


@styled
def mask_columns(images: Tensor, masks: dict[str, Mask], grid: tuple[int, int]) -> Figure:
    """The images, and a column for every mask, under its title.

    Args:
        images: (n, C, H, W) uint8.
        masks: one for all images, by title.
        grid: rows and columns of patches.
    """
    figure, axes = picture_table(len(images), 1 + len(masks), grid)
    for row, picture in zip(axes, to_rgb(images), strict=True):
        for ax in row:
            draw_picture(ax, picture, grid)
    axes[0, 0].set_title("original")
    for column, (title, mask) in enumerate(masks.items(), start=1):
        axes[0, column].set_title(title)
        for image, ax in enumerate(axes[:, column]):
            cover(ax, mask.masked[image], grid)
            if mask.depth is not None and mask.hierarchy is not None:
                caption(ax, f"depth {mask.depth[image]} of {mask.hierarchy.height[image]}")
    return figure


def cover(ax: Axes, masked: Tensor, grid: tuple[int, int]) -> None:
    """Lay grey over the hidden patches, `masked` (N,), of a picture that is drawn already."""
    overlay = np.zeros((*grid, 4))
    overlay[masked.cpu().numpy().reshape(grid)] = (*rgb_of(COVERED), 1.0)
    ax.imshow(overlay, extent=(0, grid[1], grid[0], 0), interpolation="nearest")
