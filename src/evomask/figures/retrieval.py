"""Queries, and what was found for each: right and wrong are framed in two colours (the paper's Fig. 10)."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from evomask.figures.style import FAINT, GREEN, VERMILLION, picture_table, styled, to_rgb

FRAMES = {"right": GREEN, "wrong": VERMILLION, "junk": FAINT}
"""By verdict; junk is what does not count, for or against."""


@styled
def found_images(images: Tensor, verdicts: Sequence[Sequence[str]]) -> Figure:
    """A row for each query: the query, then what was found, nearest first.

    Args:
        images: (queries, 1 + n, C, H, W) uint8.
        verdicts: of each query, "right", "wrong" or "junk" for each of the n.
    """
    rows, columns = images.shape[:2]
    figure, axes = picture_table(rows, columns, (1, 1))
    for row in range(rows):
        pictures = to_rgb(images[row])
        for ax, picture, verdict in zip(axes[row], pictures, (None, *verdicts[row]), strict=True):
            ax.imshow(picture, extent=(0, 1, 1, 0), interpolation="lanczos")
            if verdict is not None:
                frame = Rectangle((0, 0), 1, 1, fill=False, edgecolor=FRAMES[verdict], linewidth=4, clip_on=False)
                ax.add_patch(frame)
    for column, ax in enumerate(axes[0]):
        ax.set_title("query" if column == 0 else str(column))
    return figure
