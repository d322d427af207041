"""One vector for a whole image, to be found by: pooled features, projected where it has been learnt how, of length 1."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from evomask.models.encoders import Encoder, Pooling

DescriptorPooling = Literal["gem", Pooling]
_LEAST = 1e-6


def generalised_mean(tokens_BND: Tensor, power: float) -> Tensor:
    """(B, N, D) -> (B, D), GeM (Radenović et al., 2018): the mean over tokens at power 1, the maximum at infinity.

    What is below 1e-6 counts as that, as a power asks for. Computed in float32.
    """
    return tokens_BND.float().clamp(min=_LEAST).pow(power).mean(dim=1).pow(1 / power)


class GlobalDescriptor(nn.Module):
    """Images -> descriptors.

    Args:
        encoder: sees them.
        pooling: the generalised mean over patch tokens, their mean, or the class token.
        power: of the generalised mean.
        width: of a descriptor, to which features are projected; None: features are taken as they are.

    Raises:
        ValueError: the encoder has no class token, or a number that cannot be.
    """

    def __init__(self, encoder: Encoder, pooling: DescriptorPooling = "gem", power: float = 3.0, width: int | None = None):
        super().__init__()
        if pooling not in ("gem", *encoder.poolings):
            raise ValueError(f"{encoder.name} has no class token: its descriptors are of --pooling gem or mean")
        if power < 1 or (width is not None and width < 1):
            raise ValueError(f"the power of GeM and the width of a descriptor must be at least 1, not {power} and {width}")
        self.model = encoder.model
        self.projection = nn.Identity() if width is None else nn.Linear(encoder.width, width)
        self.width = width or encoder.width
        self.encoder, self._power = encoder, power
        self._pooling: DescriptorPooling = pooling

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images of the encoder's size -> (B, width) float32 of length 1."""
        return self.describe(self.encoder, images)

    def describe(self, encoder: Encoder, images: Tensor) -> Tensor:
        """The same by the encoder for another size, see `AnySize`."""
        if self._pooling == "gem":
            features = generalised_mean(encoder.patch_tokens(images), self._power)
        else:
            features = encoder.features(images, self._pooling)
        return normalize(self.projection(features).float(), dim=1)


def merged(descriptors: Sequence[Tensor]) -> Tensor:
    """Descriptors (B, D) of the same images at several scales -> (B, D): their mean, of length 1 again."""
    return normalize(torch.stack(list(descriptors)).mean(dim=0), dim=1)
