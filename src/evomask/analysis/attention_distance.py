"""Mean attention distance: how far away the patches are that a patch looks at (Dosovitskiy et al., 2021, appendix D.7)."""

import torch
from torch import Tensor


def mean_attention_distance(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """Distance between the middles of a patch and those it looks at, weighted by attention, mean over the patches that look.

    Args:
        attention: (..., N, N), row: query, column: key, patches only; a row that sums to less than 1 is brought to it. Any
            dimensions before: images, blocks, heads.
        grid: rows and columns of patches, H x W = N.

    Returns:
        (...) in sides of a patch: 0 where each patch looks at itself alone, 7.3 for even attention on 14 x 14.
    """
    row, column = (part.flatten() for part in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    place_N2 = torch.stack((row, column), dim=1).to(attention.device, torch.float32)
    distance_NN = torch.cdist(place_N2, place_N2, compute_mode="donot_use_mm_for_euclid_dist")  # exact zeros on the diagonal
    weight = attention.float()
    return ((weight * distance_NN).sum(dim=-1) / weight.sum(dim=-1)).mean(dim=-1)
