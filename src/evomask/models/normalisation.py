"""Mean and standard deviation of images, channel by channel, where they are needed."""

from functools import cache

import torch
from torch import Tensor


@cache
def per_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(C, 1, 1) float32, a number a channel.

    Kept, since a copy to a GPU makes the CPU wait for all that the GPU has still to do.
    """
    return torch.tensor(values, device=device).view(-1, 1, 1)
