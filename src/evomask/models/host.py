"""What a host is: a model that restores the masked part of an image, and that can be asked for its attention."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn

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


class Host(nn.Module, ABC):
    """The three things that a training step asks of a host, in this order, and what is made of a trained one.

    Attributes:
        encoder: the timm model, which keeps nothing of the host, so that it can be taken out as it is.
        grid: rows and columns of patches, the leaves of the trees and the places of a mask, H x W = N.
        mean, std: of a channel of images in [0, 1], one number a channel: how the images that it is given are normalised, for a
            host that has to look at them in another way.
    """

    encoder: Any
    grid: tuple[int, int]
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN
    std: Sequence[float] = IMAGENET_DEFAULT_STD

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> patch embeddings; shared by scan and training pass."""

    @abstractmethod
    def affinity(self, tokens: Tensor) -> Tensor:
        """What `embed` gave -> (B, N, N) float32, mean attention between patches, all visible; without gradient."""

    @abstractmethod
    def forward(self, images: Tensor, tokens: Tensor, mask: Mask) -> HostOutput:
        """Restore what the mask hides.

        Args:
            images: (B, C, H, W) normalised.
            tokens: what `embed` gave.
            mask: over N patches.
        """

    @abstractmethod
    def compile(self, **options: Any) -> None:
        """Compile in place what takes the time; names in `state_dict` stay. Options are those of `torch.compile`."""

    @abstractmethod
    def for_transformers(self, mask_ratio: float) -> "TransformersModel":
        """The model as transformers stores it; the ratio is that of transformers' own masks, where it draws some.

        Raises:
            ValueError: transformers has no words for it.
        """

    def check_mask(self, mask: Mask, images: int) -> None:
        """Raise a ValueError where a mask is not over so many images and the N patches."""
        expected = (images, self.grid[0] * self.grid[1])
        if mask.masked.shape != expected:
            given = tuple(mask.masked.shape)
            raise ValueError(f"the mask must be (images, patches) = {expected}, not {given}; a class token does not count")

    def reconstruct(self, images: Tensor, mask: Mask) -> Tensor | None:
        """(B, C, H, W) the images with the hidden patches as the model restores them, for pictures; None: it restores none."""
        return None


@dataclass(frozen=True)
class TransformersModel:
    """A trained model as transformers stores it.

    Attributes:
        config: of config.json.
        weights: by their names there.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
