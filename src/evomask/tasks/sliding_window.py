"""Segmenting images that are larger than what is trained on: window by window, logits averaged where windows overlap."""

import math
from collections.abc import Callable, Iterator

from torch import Tensor


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where windows begin along a side: every `stride`, and the last one so that it ends with the side."""
    if length <= window:
        return [0]
    count = math.ceil((length - window) / stride) + 1
    return [min(number * stride, length - window) for number in range(count)]


def sliding_logits(
    logits_of: Callable[[Tensor], Tensor], images: Tensor, window: tuple[int, int], stride: tuple[int, int]
) -> Tensor:
    """(B, classes, H, W) means of the logits of all windows that a pixel is in.

    Args:
        logits_of: (B, C, h, w) -> (B, classes, h, w).
        images: (B, C, H, W) normalised; along a side that is shorter than a window, the window is as short.
        window: height and width in pixels.
        stride: from one window to the next, down and to the right.
    """
    height, width = images.shape[-2:]
    total: Tensor | None = None
    count = images.new_zeros(1, 1, height, width)
    for top, left in _places((height, width), window, stride):
        rows, columns = slice(top, top + window[0]), slice(left, left + window[1])
        logits = logits_of(images[..., rows, columns])
        if total is None:
            total = logits.new_zeros(len(images), logits.shape[1], height, width)
        total[..., rows, columns] += logits
        count[..., rows, columns] += 1
    assert total is not None
    return total / count


def _places(size: tuple[int, int], window: tuple[int, int], stride: tuple[int, int]) -> Iterator[tuple[int, int]]:
    tops, lefts = (window_starts(*sides) for sides in zip(size, window, stride, strict=True))
    return ((top, left) for top in tops for left in lefts)
