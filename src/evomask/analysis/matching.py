"""Which patch of one image looks like which of another, to an encoder."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from evomask.models.encoders import Encoder


@dataclass(frozen=True)
class Matches:
    """Pairs of patches, the most similar first.

    Attributes:
        first: (n,) long, patches of the first image, row by row.
        second: (n,) long, those of the second image that they match.
        similarity: (n,) float32, cosine.
        grid: rows and columns of patches, of either image.
    """

    first: Tensor
    second: Tensor
    similarity: Tensor
    grid: tuple[int, int]


@torch.no_grad()
def match_patches(encoder: Encoder, images: Tensor, most: int) -> Matches:
    """Pairs of patches each of which is the other's nearest of its image, by the cosine of the encoder's patch tokens.

    The mean token of both images is taken off first: what all patches have in common tells none from another.

    Args:
        encoder: with its patches in rows and columns, as a ViT or Swin has them.
        images: (2, C, H, W) normalised.
        most: so many pairs at most, the most similar ones.
    """
    tokens_2ND = encoder.patch_tokens(images).float()
    one, other = normalize(tokens_2ND - tokens_2ND.mean(dim=(0, 1)), dim=-1)
    similarity_NN = one @ other.T
    best, partner = similarity_NN.max(dim=1)
    mutual = similarity_NN.argmax(dim=0)[partner] == torch.arange(len(one), device=one.device)
    ordered = best.masked_fill(~mutual, -torch.inf).argsort(descending=True, stable=True)[: min(most, int(mutual.sum()))]
    return Matches(ordered.cpu(), partner[ordered].cpu(), best[ordered].cpu(), _grid(len(one), encoder.image_size))


def _grid(patches: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of so many patches as high as wide, or nearly so."""
    height, width = image_size
    rows = round((patches * height / width) ** 0.5)
    assert patches % rows == 0, "a map of patches has rows and columns"
    return rows, patches // rows
