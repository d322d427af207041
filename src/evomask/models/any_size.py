"""One encoder for images of any size: what depends on the size is made anew for each, and the weights are shared."""

import copy
from collections import OrderedDict
from typing import Any

import torch

from evomask.models.encoders import Encoder

KEPT = 64
"""Sizes whose models are kept, those used last: a photo collection has about so many shapes, and each is but a few modules."""


class AnySize:
    """`any_size(height, width)` is the encoder for images of that size.

    Positions are interpolated from the encoder's own each time, never from interpolated ones, and the encoder stays as it is.

    Args:
        encoder: of any size; its weights may change meanwhile, but for its positions.
    """

    def __init__(self, encoder: Encoder):
        self._encoder = encoder
        model: Any = encoder.model
        embedding: Any = getattr(model, "patch_embed", None)
        self._is_fixed = hasattr(model, "set_input_size") or getattr(embedding, "img_size", None) is not None
        self.unit: tuple[int, int] = tuple(embedding.patch_size) if self._is_fixed else (1, 1)
        """What height and width of an image have to be multiples of, in pixels."""
        self._made: OrderedDict[tuple[int, int], Encoder] = OrderedDict()

    @torch.no_grad()
    def __call__(self, height: int, width: int) -> Encoder:
        """The encoder for images of this size.

        Raises:
            ValueError: it can see images of one size only, or the size is not made of its patches.
        """
        size = (height, width)
        if size == self._encoder.image_size or not self._is_fixed:
            return self._encoder
        if size in self._made:
            self._made.move_to_end(size)
            return self._made[size]
        shared = {id(tensor): tensor for tensor in self._encoder.model.parameters()}
        model = copy.deepcopy(self._encoder.model, shared)
        made = Encoder.of(model, self._encoder.mean, self._encoder.std, self._encoder.name).resized(size)
        self._made[size] = made
        if len(self._made) > KEPT:
            self._made.popitem(last=False)
        return made
