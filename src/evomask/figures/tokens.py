"""What is left of an image in its visual tokens: originals, and what a tokenizer makes of their tokens."""

from matplotlib.figure import Figure
from torch import Tensor

from evomask.figures.style import draw_picture, picture_table, styled, to_rgb


@styled
def token_reconstructions(images: Tensor, restored: Tensor, grid: tuple[int, int], columns: int = 4) -> Figure:
    """Pairs of pictures, an original and beside it what its tokens hold of it; so many pairs a row.

    Args:
        images: (n, C, H, W) uint8.
        restored: (n, C, H, W) uint8, likewise.
        grid: rows and columns of tokens.
        columns: pairs a row.
    """
    columns = min(columns, len(images))
    figure, axes = picture_table(-(-len(images) // columns), 2 * columns, grid)
    for number, pair in enumerate(zip(to_rgb(images), to_rgb(restored), strict=True)):
        row, column = divmod(number, columns)
        for ax, picture in zip(axes[row, 2 * column : 2 * column + 2], pair, strict=True):
            draw_picture(ax, picture, grid)
    for column in range(columns):
        axes[0, 2 * column].set_title("original")
        axes[0, 2 * column + 1].set_title(f"{grid[0]} × {grid[1]} tokens")
    return figure
