"""What a host is: a model that restores the masked part of an image, and that can be asked for its attention."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from evomask.masking import Mask


@dataclass(frozen=True, eq=False)
class HostOutput:
    """What one forward pass of a host gives.

    Attributes:
        loss: scalar, over masked patches only.
        prediction: (B, N - K, ...) what the host predicts for the hidden patches, in their order: pixels, or logits over visual
            tokens.
    """

    loss: Tensor
    prediction: Tensor


class Host(Protocol):
    """The four things that a training step asks of a host, in this order."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        ...

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, N, D) patch embeddings with positions; shared by scan and training pass."""
        ...

    def affinity(self, tokens: Tensor) -> Tensor:
        """(B, N, D) from `embed` -> (B, N, N) float32, mean attention between patches, all visible; without gradient."""
        ...

    def __call__(self, images: Tensor, tokens: Tensor, mask: Mask) -> HostOutput:
        """Restore what the mask hides."""
        ...
