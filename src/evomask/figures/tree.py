"""The upper part of a tree, each node drawn as the patches under it."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from evomask.figures.style import FAINT, styled, to_rgb
from evomask.masking import Hierarchy

SIDE, SPACE = 0.62, 0.1
"""Of the picture of a node, and what is left around it, in inches."""


@styled
def trees_of_patches(images: Tensor, hierarchy: Hierarchy, grid: tuple[int, int], groups: int = 10) -> Figure:
    """A tree an image, its root on top: the whole image, then what its merges joined, down to so many groups.

    From the root on, always the largest node is opened. Branches of less than a thirtieth of the image are left out.

    Args:
        images: (n, C, H, W) uint8.
        hierarchy: of these images.
        grid: rows and columns of patches.
        groups: how many nodes are not opened.
    """
    drawn = [open_largest(hierarchy, image, groups) for image in range(len(images))]
    levels = [1 + max(node.depth for node in nodes) for nodes in drawn]
    columns = max(1 + round(max(node.place for node in nodes)) for nodes in drawn)
    height = SIDE * grid[0] / grid[1]
    row, column = height + 2.6 * SPACE, SIDE + SPACE
    figure = Figure(figsize=(columns * column, sum(levels) * row))
    bottom = sum(levels)
    for image, (picture, nodes) in enumerate(zip(to_rgb(images), drawn, strict=True)):
        bottom -= levels[image]
        ax = figure.add_axes((0, bottom / sum(levels), 1, levels[image] / sum(levels)))
        ax.set_axis_off()
        ax.set(xlim=(-0.5, columns - 0.5), ylim=(levels[image] - 0.5, -0.5))
        below_MN = _patches_below(hierarchy, image)
        for node in nodes:
            for child in node.below or ():
                joint = node.depth + 0.5 + SPACE / row / 2
                across = (node.place, node.place, child.place, child.place)
                ax.plot(across, (node.depth, joint, joint, child.depth), color=FAINT, linewidth=1, solid_joinstyle="miter")
            shown_HW = below_MN[node.number].reshape(grid)
            _draw_node(ax, picture, shown_HW, node, SIDE / column, height / row)
    return figure


@dataclass
class Node:
    """A node of a drawn tree.

    Attributes:
        number: in the hierarchy.
        depth: below the root, in nodes that are drawn.
        place: from left to right, from 0.
        below: the two nodes that it is opened into, or none.
    """

    number: int
    depth: int
    place: float = 0.0
    below: tuple["Node", "Node"] | None = None


def open_largest(hierarchy: Hierarchy, image: int, groups: int) -> list[Node]:
    """The nodes to draw, the root first, and so many, or fewer, that are not opened."""
    children, size = hierarchy.children[image].tolist(), hierarchy.size[image].tolist()
    patches, least = hierarchy.patches, hierarchy.patches / 30

    def branches(number: int) -> list[int] | None:
        """The next two nodes below it that are large enough, the larger one first."""
        while number >= patches:
            large, small = sorted(children[number - patches], key=lambda child: -size[child])
            if size[small] >= least:
                return [large, small]
            number = large
        return None

    nodes = [Node(len(size) - 1, depth=0)]
    ends = list(nodes)
    while len(ends) < groups:
        largest = max((node for node in ends if branches(node.number)), key=lambda node: size[node.number], default=None)
        if largest is None:
            break
        first, second = (Node(number, largest.depth + 1) for number in branches(largest.number) or ())
        largest.below = (first, second)
        place = ends.index(largest)
        ends[place : place + 1] = largest.below
        nodes += largest.below
    for place, node in enumerate(ends):
        node.place = place
    for node in reversed(nodes):
        if node.below:
            node.place = (node.below[0].place + node.below[1].place) / 2
    return nodes


def _patches_below(hierarchy: Hierarchy, image: int) -> np.ndarray:
    """(M, N) bool, which patches are under each node."""
    children, patches = hierarchy.children[image].tolist(), hierarchy.patches
    below_MN = np.zeros((len(children) + patches, patches), dtype=bool)
    below_MN[np.arange(patches), np.arange(patches)] = True
    for merge, (first, second) in enumerate(children, start=patches):
        below_MN[merge] = below_MN[first] | below_MN[second]
    return below_MN


def _draw_node(ax: Axes, picture: np.ndarray, shown_HW: np.ndarray, node: Node, width: float, height: float) -> None:
    """The patches of a node in their own colours, all others pale, and their number."""
    scale = (picture.shape[0] // shown_HW.shape[0], picture.shape[1] // shown_HW.shape[1])
    shown = np.kron(shown_HW, np.ones(scale, dtype=bool))[..., None]
    pale = 216 + picture.mean(axis=2, keepdims=True) / 12
    pixels = np.where(shown, picture, pale).astype(np.uint8)
    (left, right), (top, bottom) = ((middle - side / 2, middle + side / 2) for middle, side in
                                    ((node.place, width), (node.depth, height)))  # fmt: skip
    ax.imshow(pixels, extent=(left, right, bottom, top), aspect="auto", interpolation="lanczos", zorder=2)
    ax.annotate(f"{shown_HW.sum()}", (node.place, bottom), (0, -1), textcoords="offset points", ha="center", va="top",
                fontsize=6.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5}, zorder=3)  # fmt: skip
