"""More random numbers from the noise of an image, for strategies that need other draws than one a patch."""

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15 - 2**64  # the constants of splitmix64 (Steele et al., 2014) as signed 64-bit numbers
_FIRST = 0xBF58476D1CE4E5B9 - 2**64
_SECOND = 0x94D049BB133111EB - 2**64


def uniform_stream(noise_BN: Tensor, count: int) -> Tensor:
    """(B, count) float64, uniform in [0, 1): a function of the noise alone, and without visible relation to it.

    A counter-based generator (splitmix64) with the noise of the whole image as the seed: two images whose noise differs in
    one patch get unrelated streams, on any device the same.
    """
    seed_B = (noise_BN.double() * 2**53).long().sum(dim=1)
    counter_K = torch.arange(1, count + 1, device=noise_BN.device)
    bits_BK = seed_B.unsqueeze(1) + counter_K * _GAMMA  # 64-bit products and sums wrap around: that is wanted
    bits_BK = (bits_BK ^ _shift_right(bits_BK, 30)) * _FIRST
    bits_BK = (bits_BK ^ _shift_right(bits_BK, 27)) * _SECOND
    bits_BK = bits_BK ^ _shift_right(bits_BK, 31)
    return _shift_right(bits_BK, 11).double() / 2**53


def _shift_right(bits: Tensor, places: int) -> Tensor:
    # torch has signed integers only, whose shift copies the sign.
    return (bits >> places) & (2 ** (64 - places) - 1)
