"""What a tokenizer is: a frozen model that says in one of many words what is to be seen at each place of an image."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional


class Tokenizer(nn.Module, ABC):
    """Images -> visual tokens, a number for each place of a grid.

    Attributes:
        vocabulary: how many different tokens there are.
        stride: side in pixels of a place; so a grid of H x W needs an image of H * stride x W * stride px.
        in_chans: channels of an image.
    """

    vocabulary: int
    stride: int
    in_chans: int

    @abstractmethod
    def ids(self, pixels: Tensor) -> Tensor:
        """(B, C, H * stride, W * stride) in [0, 1] -> (B, H, W) long, in [0, vocabulary)."""

    def decode(self, ids: Tensor) -> Tensor | None:
        """(B, H, W) long -> (B, C, H * stride, W * stride) in [0, 1], for pictures; None: it has no decoder."""
        return None

    def image_size(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the image that gives a grid of so many rows and columns."""
        return grid[0] * self.stride, grid[1] * self.stride

    @torch.no_grad()
    def forward(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """The tokens of images of any size, in float32 whatever the precision of the training that asks.

        Args:
            pixels: (B, C, height, width) in [0, 1]; they are scaled to the tokenizer's own size.
            grid: rows and columns, H x W = N.

        Returns:
            (B, N) long, row by row.
        """
        with torch.autocast(pixels.device.type, enabled=False):
            return self.ids(self.fitted(pixels.float(), grid)).flatten(1)

    def fitted(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, C, height, width) in [0, 1] -> the same scaled to `image_size(grid)`."""
        size = self.image_size(grid)
        if pixels.shape[-2:] == size:
            return pixels
        return functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp(0, 1)


def code_usage(ids: Tensor, vocabulary: int) -> dict[str, float]:
    """How many of its tokens a tokenizer uses.

    Args:
        ids: long, any shape: what it made of some images.
        vocabulary: how many there are.

    Returns:
        `perplexity`, the number of tokens that would be as hard to guess were they all alike frequent, exp of the entropy in
        nats: 1 where all are the same; and `codes_used`, the share of those that occur, in percent.
    """
    share = ids.flatten().bincount(minlength=vocabulary).double() / ids.numel()
    used = share[share > 0]
    return {"perplexity": (-(used * used.log()).sum()).exp().item(), "codes_used": 100 * len(used) / vocabulary}
