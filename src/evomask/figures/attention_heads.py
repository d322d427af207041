"""Where chosen patches look, each head in a colour of its own (the paper's Fig. 8)."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from evomask.figures.attention import mark
from evomask.figures.style import draw_picture, head_colours, picture_table, styled, to_rgb


@styled
def attention_by_head(
    images: Tensor, attention: Tensor, grid: tuple[int, int], queries: Sequence[tuple[int, int]], block: int
) -> Figure:
    """A row an image, and for each query the image with a dot on it, and the map of what it looks at.

    Args:
        images: (n, C, H, W) uint8.
        attention: (n, queries, heads, N), what each patch gets.
        grid: rows and columns of patches.
        queries: (row, column) of the patches that look.
        block: whose attention it is, for the title.
    """
    figure, axes = picture_table(len(images), 2 * len(queries), grid)
    heads = attention.shape[2]
    for picture, attention_QHN, line in zip(to_rgb(images), attention.float().cpu().numpy(), axes, strict=True):
        for number, (row, column) in enumerate(queries):
            original, coloured = line[2 * number : 2 * number + 2]
            draw_picture(original, picture, grid)
            map_HWC = in_colours(attention_QHN[number]).reshape(*grid, 3)
            coloured.imshow(map_HWC, extent=(0, grid[1], grid[0], 0), interpolation="nearest")
            for ax in (original, coloured):
                mark(ax, row, column)
    for number in range(len(queries)):
        axes[0, 2 * number].set_title("query")
        axes[0, 2 * number + 1].set_title(f"block {block}")
    handles = [Patch(color=colour, label=f"head {number}") for number, colour in enumerate(head_colours(heads), start=1)]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(heads, 6), fontsize=7, handlelength=1)
    return figure


def in_colours(attention_HN: np.ndarray) -> np.ndarray:
    """(heads, N) -> (N, 3), red, green and blue in [0, 1].

    A patch has the colour of the head that gives it most, each head in units of the most that it gives to any; it is the
    brighter, the more that is. Brightness is the square root of it, since attention is a few peaks over a wide low ground.
    """
    share_HN = attention_HN / attention_HN.max(axis=1, keepdims=True).clip(min=1e-12)
    strongest_N = share_HN.argmax(axis=0)
    return head_colours(len(share_HN))[strongest_N] * np.sqrt(share_HN.max(axis=0))[:, None]
