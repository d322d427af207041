"""Similarities of patches that no model has a part in: what a tree of attention has to beat."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

Grid = tuple[int, int]


def colour_affinity(images: Tensor, grid: Grid) -> Tensor:
    """(B, C, H, W) normalised images -> (B, N, N): the nearer their mean colours, the more alike two patches."""
    return -_relative_distance(_mean_colours(images, grid))


def position_affinity(images: Tensor, grid: Grid) -> Tensor:
    """The nearer they lie, the more alike: the same tree for all images, up to chance."""
    return -_relative_distance(_places(images, grid))


def colour_and_position_affinity(images: Tensor, grid: Grid) -> Tensor:
    """Both distances together, each in units of its mean."""
    return colour_affinity(images, grid) + position_affinity(images, grid)


def chance_affinity(images: Tensor, grid: Grid) -> Tensor:
    """Nothing but noise, the same for the same number of images."""
    count = grid[0] * grid[1]
    return torch.rand(len(images), count, count, generator=torch.Generator().manual_seed(0)).to(images.device)


PLAIN_AFFINITIES: dict[str, Callable[[Tensor, Grid], Tensor]] = {
    "colour": colour_affinity,
    "position": position_affinity,
    "colour_and_position": colour_and_position_affinity,
    "chance": chance_affinity,
}
"""By name."""


def _mean_colours(images: Tensor, grid: Grid) -> Tensor:
    patch = (images.shape[2] // grid[0], images.shape[3] // grid[1])
    return avg_pool2d(images, patch).flatten(2).mT


def _places(images: Tensor, grid: Grid) -> Tensor:
    place_N2 = torch.cartesian_prod(*map(torch.arange, grid)).to(images.device, torch.float32)
    # Equal distances would make the tree one of the grid's order: what is added is far below the least difference.
    noise = torch.rand(len(images), *place_N2.shape, generator=torch.Generator().manual_seed(0)).to(images.device)
    return place_N2 + 1e-3 * noise


def _relative_distance(points_BND: Tensor) -> Tensor:
    distance_BNN = torch.cdist(points_BND, points_BND)
    return distance_BNN / distance_BNN.mean(dim=(1, 2), keepdim=True).clamp(min=1e-9)
