"""RankMe: how many dimensions an encoder's features use, measured without labels (Garrido et al., 2023, Eq. 1)."""

import torch
from torch import Tensor


def rankme(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values: a smooth count of the directions that features spread over.

    A collapsed encoder has 1. Values of different data, or of another number of images, are not to be compared.

    Args:
        features: (n, D), not centred. With fewer images than dimensions, n is the most that can come out.

    Returns:
        From 1 to min(n, D).
    """
    singular = torch.linalg.svdvals(features.double())
    share = singular / singular.sum()
    return torch.special.entr(share).sum().exp().item()
