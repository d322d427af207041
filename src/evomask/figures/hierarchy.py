"""The tree that attention makes of an image: its cuts at several depths (the paper's Fig. 6), and the tree itself."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from evomask.figures.style import FAINT, GROUP_COLOURS, INK, caption, draw_picture, picture_table, styled, to_rgb
from evomask.masking import Hierarchy, masking_depth

FRACTIONS = (0.1, 0.25, 0.5, 0.75, 0.9)


@styled
def partitions(
    images: Tensor,
    hierarchy: Hierarchy,
    grid: tuple[int, int],
    fractions: Sequence[float] = FRACTIONS,
) -> Figure:
    """A row an image, a column a depth: each group in a colour, relatives in the tree in colours near each other.

    Args:
        images: (n, C, H, W) uint8.
        hierarchy: of these images.
        grid: rows and columns of patches.
        fractions: shares of the trees' heights, in [0, 1), at which they are cut.

    Raises:
        ValueError: a fraction out of range.
    """
    figure, axes = picture_table(len(images), 1 + len(fractions), grid)
    pictures, colours_BM4 = to_rgb(images), node_colours(hierarchy)
    grey = pictures.mean(axis=3, keepdims=True).repeat(3, axis=3).astype(np.uint8)
    for ax, picture in zip(axes[:, 0], pictures, strict=True):
        draw_picture(ax, picture, grid)
    axes[0, 0].set_title("original")
    for column, fraction in enumerate(fractions, start=1):
        depth_B = masking_depth(hierarchy.height, fraction)
        group_BN = hierarchy.cut(depth_B).cpu().numpy()
        axes[0, column].set_title(f"cut at {fraction:.0%}\nof the height")
        for image, ax in enumerate(axes[:, column]):
            draw_picture(ax, grey[image], grid)
            draw_groups(ax, group_BN[image].reshape(grid), colours_BM4[image])
            groups = len(np.unique(group_BN[image]))
            caption(ax, f"depth {depth_B[image]}/{hierarchy.height[image]} · {groups} group{'s' * (groups > 1)}")
    return figure


def draw_groups(ax: Axes, group_HW: np.ndarray, colour_M4: np.ndarray) -> None:
    """Lay the colours of the nodes `group_HW` over a picture that is drawn already, and a line around each group."""
    tint = colour_M4[group_HW]
    tint[..., 3] = 0.55
    ax.imshow(tint, extent=(0, group_HW.shape[1], group_HW.shape[0], 0), interpolation="nearest")
    ax.add_collection(LineCollection(list(boundaries(group_HW)), colors="white", linewidths=0.7, capstyle="projecting"))


def boundaries(group_HW: np.ndarray) -> np.ndarray:
    """(lines, 2, 2), from (x, y) to (x, y) in patches: the sides between neighbouring patches of different groups."""
    y, x = np.nonzero(group_HW[:, 1:] != group_HW[:, :-1])
    upright = np.stack([x + 1, y, x + 1, y + 1], axis=1)
    y, x = np.nonzero(group_HW[1:] != group_HW[:-1])
    level = np.stack([x, y + 1, x + 1, y + 1], axis=1)
    return np.concatenate([upright, level]).reshape(-1, 2, 2)


def node_places(hierarchy: Hierarchy) -> np.ndarray:
    """(B, M), where the middle of each node's patches stands in the dendrogram: from 0, the first patch, to N - 1."""
    children_BK2 = hierarchy.children.cpu().numpy()
    size_BM = hierarchy.size.cpu().numpy()
    image, patches = np.arange(len(size_BM)), hierarchy.patches
    first_BM = np.zeros_like(size_BM)
    first_BM[:, :patches] = hierarchy.leaf_position().cpu().numpy()
    for merge in range(patches - 1):
        left, right = children_BK2[:, merge].T
        first_BM[:, patches + merge] = np.minimum(first_BM[image, left], first_BM[image, right])
    return first_BM + (size_BM - 1) / 2


def node_colours(hierarchy: Hierarchy) -> np.ndarray:
    """(B, M, 4), red, green, blue and opacity in [0, 1], of each node."""
    return GROUP_COLOURS(node_places(hierarchy) / (hierarchy.patches - 1))


@styled
def dendrogram(hierarchy: Hierarchy, image: int, depth: int | None = None) -> Figure:
    """The whole tree of one image, patches below, the root above; the height of a joint is its level.

    Args:
        hierarchy: of a batch.
        image: which of them.
        depth: where given, the level at which the tree is cut: a dashed line, and the groups below it in their colours.
    """
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    ax = figure.subplots()
    patches, level_M = hierarchy.patches, hierarchy.level[image].cpu().numpy()
    left_K, right_K = hierarchy.children[image].cpu().numpy().T
    place_M, top_K = _joint_places(hierarchy, image), level_M[patches:]
    ax.add_collection(
        LineCollection(
            [
                [(place_M[a], level_M[a]), (place_M[a], top), (place_M[b], top), (place_M[b], level_M[b])]
                for a, b, top in zip(left_K, right_K, top_K, strict=True)
            ],
            colors=FAINT if depth is None else _colours_below(hierarchy, image, depth),
            linewidths=1.0,
        )
    )
    if depth is not None:
        ax.axhline(depth + 0.5, color=INK, linestyle="--", linewidth=0.8)
        ax.text(patches, depth + 0.5, f" depth {depth}", va="center")
    ax.set(xlim=(-1, patches), ylim=(0.5, level_M[-1] + 0.5), ylabel="level", xlabel=f"{patches} patches")
    ax.set_xticks([])
    ax.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _joint_places(hierarchy: Hierarchy, image: int) -> np.ndarray:
    """(M,) from left to right: a patch at its place, a merge in the middle between its children, as scipy draws it."""
    place_M = np.zeros(hierarchy.parent.shape[1])
    place_M[: hierarchy.patches] = hierarchy.leaf_position()[image].cpu().numpy()
    for merge, (left, right) in enumerate(hierarchy.children[image].tolist(), start=hierarchy.patches):
        place_M[merge] = (place_M[left] + place_M[right]) / 2
    return place_M


def _colours_below(hierarchy: Hierarchy, image: int, depth: int) -> list[np.ndarray | str]:
    """The colour of each merge: that of the group that it belongs to, none above the cut."""
    parent, level = hierarchy.parent[image].tolist(), hierarchy.level[image].tolist()
    group = list(range(len(parent)))
    for node in reversed(range(len(parent))):
        if level[parent[node]] <= depth:
            group[node] = group[parent[node]]
    colour_M4 = node_colours(hierarchy)[image]
    return [colour_M4[group[node]] if level[node] <= depth else FAINT for node in range(hierarchy.patches, len(parent))]
