"""Where chosen patches look, block by block (the paper's Fig. 8)."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from evomask.figures.style import caption, draw_picture, picture_table, styled, to_rgb

QUERY = "#FF2D20"
"""The red of the dot on the patch that looks."""


@styled
def attention_of_patches(
    images: Tensor, attention: Tensor, grid: tuple[int, int], queries: Sequence[tuple[int, int]]
) -> Figure:
    """A row an image and query: the query as a red dot, the mean attention over the blocks, then each block.

    Each map has its own scale, from nothing (dark) to its highest value (bright), which stands below it. Brightness is
    its square root, since attention is a few peaks over a wide low ground.

    Args:
        images: (n, C, H, W) uint8.
        attention: (n, blocks, N, N), of each block the mean over heads, row: query, column: key.
        grid: rows and columns of patches.
        queries: (row, column) of the patches that look, the same in all images.

    Raises:
        ValueError: a query outside the grid.
    """
    rows, columns = grid
    for row, column in queries:
        if not (0 <= row < rows and 0 <= column < columns):
            raise ValueError(f"patch ({row}, {column}) lies outside the grid of {rows} x {columns} patches")
    blocks = attention.shape[1]
    maps = torch.cat((attention.mean(dim=1, keepdim=True), attention), dim=1).float().cpu().numpy()

    figure, axes = picture_table(len(images) * len(queries), 2 + blocks, grid, cell=1.2)
    titles = ["query", f"mean of {blocks}", *(f"block {block}" for block in range(1, blocks + 1))]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    lines = iter(axes)
    for picture, map_SNN in zip(to_rgb(images), maps, strict=True):
        for row, column in queries:
            original, *others = next(lines)
            draw_picture(original, picture, grid)
            mark(original, row, column)
            for ax, map_NN in zip(others, map_SNN, strict=True):
                seen = map_NN[row * columns + column].reshape(grid)
                ax.imshow(
                    seen,
                    extent=(0, columns, rows, 0),
                    cmap="magma",
                    norm=PowerNorm(0.5, vmin=0),
                    interpolation="nearest",
                )
                mark(ax, row, column)
                caption(ax, f"up to {seen.max():.1%}")
    return figure


def mark(ax: Axes, row: int, column: int) -> None:
    """A dot on a patch of a picture that is drawn already."""
    ax.plot(column + 0.5, row + 0.5, "o", color=QUERY, markersize=4.5, markeredgecolor="white", markeredgewidth=0.7)


def middle_queries(grid: tuple[int, int]) -> list[tuple[int, int]]:
    """The middle patch, often of the object, and one near a corner, often of the background."""
    rows, columns = grid
    return [(rows // 2, columns // 2), (rows // 6, columns // 6)]
