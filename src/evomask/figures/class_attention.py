"""What the class token looks at (the paper's Fig. 3a)."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from torch import Tensor

from evomask.figures.style import caption, draw_picture, picture_table, styled, to_rgb


@styled
def class_token_attention(images: Tensor, attention: Tensor, grid: tuple[int, int]) -> Figure:
    """A row an image: the image, the mean over heads laid over it, and each head by itself.

    Args:
        images: (n, C, H, W) uint8.
        attention: (n, heads, N), what each patch gets.
        grid: rows and columns of patches.
    """
    heads = attention.shape[1]
    figure, axes = picture_table(len(images), 2 + heads, grid, cell=1.2)
    titles = ["original", f"mean of {heads}", *(f"head {number}" for number in range(1, heads + 1))]
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    for picture, attention_HN, (original, mean, *others) in zip(
        to_rgb(images), attention.float().cpu().numpy(), axes, strict=True
    ):
        draw_picture(original, picture, grid)
        draw_picture(mean, picture, grid)
        _draw_heat(mean, attention_HN.mean(axis=0).reshape(grid))
        for ax, seen_N in zip(others, attention_HN, strict=True):
            norm = PowerNorm(0.5, vmin=0)
            ax.imshow(seen_N.reshape(grid), extent=(0, grid[1], grid[0], 0), cmap="magma", norm=norm, interpolation="nearest")
            caption(ax, f"up to {seen_N.max():.1%}")
    return figure


def _draw_heat(ax: Axes, seen_HW: np.ndarray) -> None:
    """Over a picture that is drawn already: dark where nothing is looked at, clear and yellow where most is."""
    share = np.sqrt(seen_HW / seen_HW.max())
    heat = colormaps["magma"](share)
    heat[..., 3] = 0.35 + 0.35 * (1 - share)
    ax.imshow(heat, extent=(0, seen_HW.shape[1], seen_HW.shape[0], 0), interpolation="bilinear")
    caption(ax, f"up to {seen_HW.max():.1%}")
