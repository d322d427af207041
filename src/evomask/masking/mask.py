"""`Mask`: what every masking strategy returns."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from evomask.masking.hierarchy import Hierarchy


@dataclass(frozen=True, eq=False)
class Mask:
    """Which patches of each image are hidden: the same number in every image, so that the batch stays rectangular.

    Attributes:
        masked: (B, N) bool, True = hidden from the encoder. Patches are numbered row by row; a class token has no number.
        count: hidden patches in each image.
        hierarchy: the tree that the mask was cut from, where the strategy has one.
        depth: (B,) long, the level at which that tree was cut, 1 = single patches (Eq. 14).
    """

    masked: Tensor
    count: int
    hierarchy: "Hierarchy | None" = None
    depth: Tensor | None = None

    @classmethod
    def highest(
        cls, score_BN: Tensor, count: int, *, hierarchy: "Hierarchy | None" = None, depth: Tensor | None = None
    ) -> "Mask":
        """Hide the `count` patches of highest score in each image; of equal scores, the later patch."""
        hidden_BK = score_BN.argsort(dim=-1, stable=True)[:, score_BN.shape[-1] - count :]
        masked_BN = torch.zeros_like(score_BN, dtype=torch.bool).scatter(-1, hidden_BK, True)
        return cls(masked_BN, count, hierarchy=hierarchy, depth=depth)

    @cached_property
    def _visible_first(self) -> Tensor:
        return self.masked.to(torch.uint8).argsort(dim=-1, stable=True)

    @property
    def keep_indices(self) -> Tensor:
        """(B, K) long, the visible patches in ascending order."""
        return self._visible_first[:, : self.masked.shape[-1] - self.count]

    @property
    def masked_indices(self) -> Tensor:
        """(B, N - K) long, the hidden patches in ascending order."""
        return self._visible_first[:, self.masked.shape[-1] - self.count :]


class MaskingStrategy(Protocol):
    """How every strategy is called. It draws nothing itself: the same arguments give the same mask."""

    needs_affinity: ClassVar[bool]
    """Whether `affinity` has to be passed, that is, whether the model has to be asked for its attention."""

    def __call__(self, noise: Tensor, grid: tuple[int, int], progress: float = 0.0, affinity: Tensor | None = None) -> Mask:
        """Mask a batch.

        Args:
            noise: (B, N) float, uniform in [0, 1): all the randomness there is.
            grid: rows and columns of patches, H x W = N.
            progress: the share of training that is over, t / T in [0, 1).
            affinity: (B, N, N) float, attention between patches.
        """
        ...


def check_ratio(ratio: float) -> None:
    """Raise a ValueError where the mask ratio is not strictly between 0 and 1."""
    if not 0 < ratio < 1:
        raise ValueError(f"the mask ratio must lie strictly between 0 and 1, not {ratio}")


def masked_count(noise_BN: Tensor, grid: tuple[int, int], ratio: float) -> int:
    """Patches to hide in each image: `int(N * ratio)`, as the paper truncates (Eq. 16).

    Raises:
        ValueError: the noise is not (B, H * W), or the ratio hides no patch of so few.
    """
    patches = grid[0] * grid[1]
    if noise_BN.ndim != 2 or noise_BN.shape[1] != patches:
        raise ValueError(f"noise must be (images, {grid[0]} * {grid[1]} = {patches}), not {tuple(noise_BN.shape)}")
    count = int(patches * ratio)
    if count == 0:
        raise ValueError(f"a mask ratio of {ratio} hides none of {patches} patches: raise it or make the patches smaller")
    return count
