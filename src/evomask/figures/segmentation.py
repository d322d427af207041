"""Images, the classes of their pixels, and what a segmenter takes them for (the paper's Fig. 9)."""

import colorsys
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from torch import Tensor

from evomask.figures.style import COVERED, styled, to_rgb

_MOST_IN_LEGEND = 24
"""Classes that can be told apart in a legend: the largest ones."""


@styled
def segmentations(
    images: Sequence[Tensor], labels: Sequence[Tensor], predicted: Sequence[Tensor], classes: Sequence[str]
) -> Figure:
    """A column an image; below it the truth, and below that what is taken for it. Pixels that are not judged are grey.

    Args:
        images: each (C, H, W) uint8.
        labels: each (H, W) long, below 0 where they are not judged.
        predicted: each (H, W) long.
        classes: names of the classes.
    """
    colours = class_colours(len(classes))
    widths = [image.shape[-1] / image.shape[-2] for image in images]
    figure = Figure(figsize=(1.6 * sum(widths) + 1.8, 5.2), layout="compressed")
    axes = figure.subplots(3, len(images), squeeze=False, width_ratios=widths)
    for column, (image, truth, guess) in enumerate(zip(images, labels, predicted, strict=True)):
        pictures = (to_rgb(image.unsqueeze(0))[0], _painted(truth, truth, colours), _painted(guess, truth, colours))
        for ax, picture in zip(axes[:, column], pictures, strict=True):
            ax.imshow(picture, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(visible=False)
            ax.spines[:].set_visible(False)
    for ax, title in zip(axes[:, 0], ("image", "truth", "prediction"), strict=True):
        ax.set_ylabel(title)
    shown = np.concatenate([part[truth >= 0].flatten().numpy() for truth, part in zip(labels, predicted, strict=True)])
    shown = np.concatenate([shown, *(truth[truth >= 0].flatten().numpy() for truth in labels)])
    count = np.bincount(shown, minlength=len(classes))
    largest = [number for number in np.argsort(-count, kind="stable")[:_MOST_IN_LEGEND] if count[number]]
    handles = [Patch(color=tuple(colours[number] / 255), label=classes[number][:24]) for number in largest]
    figure.legend(handles=handles, loc="outside right center", fontsize=7)
    return figure


def class_colours(classes: int) -> np.ndarray:
    """(classes, 3) uint8: hues at the golden angle, in turn light and dark, so that neighbours in number look unlike."""
    hues = [(number * 0.618034) % 1 for number in range(classes)]
    looks = ((0.65, 0.95), (0.9, 0.7), (0.45, 0.8))
    colours = [colorsys.hsv_to_rgb(hue, *looks[number % 3]) for number, hue in enumerate(hues)]
    return (255 * np.array(colours)).round().astype(np.uint8)


def _painted(numbers: Tensor, truth: Tensor, colours: np.ndarray) -> np.ndarray:
    """(H, W, 3) the colour of each pixel's class."""
    picture = colours[numbers.clamp(min=0).numpy()]
    picture[(truth < 0).numpy()] = [int(COVERED[place : place + 2], 16) for place in (1, 3, 5)]
    return picture
