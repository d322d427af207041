"""What a detector finds, beside the truth: boxes, masks and classes."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb as rgb_of
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from evomask.data.instances import Instances
from evomask.figures.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILLION, YELLOW, styled, to_rgb

_COLOURS = (VERMILLION, SKY, GREEN, ORANGE, PURPLE, BLUE, YELLOW)
"""By class, over and over."""
_OPACITY = 0.45
_WIDTH = 3.2


@dataclass(frozen=True, eq=False)
class DetectedImage:
    """An image to be drawn.

    Attributes:
        image: (C, H, W) uint8.
        truth: its objects.
        found: what was detected in it.
        scores: (D,) of what was found, 0 to 1.
    """

    image: Tensor
    truth: Instances
    found: Instances
    scores: Tensor


@styled
def beside_truth(pictures: Sequence[DetectedImage], classes: Sequence[str]) -> Figure:
    """A row for each image: its objects on the left, what was found on the right.

    Args:
        pictures: the images, at least one.
        classes: names; that of label 1 is the first.
    """
    heights = [_WIDTH * picture.image.shape[-2] / picture.image.shape[-1] for picture in pictures]
    figure = Figure(figsize=(2 * _WIDTH + 0.2, sum(heights) + 0.1 * len(pictures) + 0.3), layout="constrained")
    axes = figure.subplots(len(pictures), 2, squeeze=False, height_ratios=heights)
    for (left, right), picture in zip(axes, pictures, strict=True):
        _draw(left, picture.image, picture.truth, classes, None)
        _draw(right, picture.image, picture.found, classes, picture.scores)
    axes[0][0].set_title("truth")
    axes[0][1].set_title("found")
    return figure


def _draw(ax: Axes, image: Tensor, objects: Instances, classes: Sequence[str], scores: Tensor | None) -> None:
    pixels = to_rgb(image.unsqueeze(0))[0] / 255
    things = zip(objects.boxes.tolist(), objects.labels.tolist(), objects.masks, strict=True)
    for number, (box, label, mask) in enumerate(things):
        colour = _COLOURS[label % len(_COLOURS)]
        where = mask.numpy()
        pixels[where] = (1 - _OPACITY) * pixels[where] + [_OPACITY * part for part in rgb_of(colour)]
        left, top, right, bottom = box
        ax.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=1))
        name = classes[int(label) - 1]
        text = name if scores is None else f"{name} {100 * scores[number]:.0f}%"
        plate = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
        ax.text(left, top, text, fontsize=5, color=INK, va="bottom", bbox=plate, clip_on=True)
    ax.imshow(pixels, extent=(0, image.shape[-1], image.shape[-2], 0))
    ax.set_axis_off()
