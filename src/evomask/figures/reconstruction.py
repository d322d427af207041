"""What a host makes of the hidden part of an image: original, what it was shown, what it restored."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from evomask.figures.masks import cover
from evomask.figures.style import draw_picture, picture_table, styled, to_rgb


@styled
def reconstructions(
    images: Tensor,
    trials: Sequence[tuple[str, Tensor, Tensor]],
    grid: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
) -> Figure:
    """A row an image; after the original two columns a trial: the masked image and the restored one.

    Args:
        images: (n, C, H, W) uint8.
        trials: a title such as "random mask", masked (n, N) bool, and the reconstruction (n, C, H, W), normalised.
        grid: rows and columns of patches.
        mean: one a channel, of pixels in [0, 1], as the images were normalised.
        std: likewise.
    """
    figure, axes = picture_table(len(images), 1 + 2 * len(trials), grid)
    for row, picture in zip(axes, to_rgb(images), strict=True):
        for ax in row[[0, *range(1, len(row), 2)]]:
            draw_picture(ax, picture, grid)
    axes[0, 0].set_title("original")
    for trial, (title, masked, reconstruction) in enumerate(trials):
        shown, restored = axes[:, 1 + 2 * trial], axes[:, 2 + 2 * trial]
        shown[0].set_title(title)
        restored[0].set_title("restored")
        for image, picture in enumerate(to_rgb(denormalise(reconstruction, mean, std))):
            cover(shown[image], masked[image], grid)
            draw_picture(restored[image], picture, grid)
    return figure


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(n, C, H, W) normalised -> uint8, values out of range cut off."""
    mean_C11, std_C11 = (torch.tensor(values, device=images.device).view(-1, 1, 1) for values in (mean, std))
    return ((images.float() * std_C11 + mean_C11).clamp(0, 1) * 255).round().to(torch.uint8)
