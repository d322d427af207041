"""An encoder as the visual tokenizer of a language model: its patches -> a few embeddings of the language model's width."""

from typing import Any

import torch
from torch import Tensor, nn

from evomask.models.encoders import Encoder
from evomask.models.resampler import PerceiverResampler, ResamplerConfig


class VisualTokenizer(nn.Module):
    """LayerNorm, Perceiver resampler and a linear layer after an encoder.

    What all images have in common can be made away with before, see `standardise`: a third of the power of patch tokens, where
    what differs between images has a thirtieth.

    The encoder is part of the module, and of its checkpoints, only where it is trained, too.

    Args:
        encoder: of images; where it is trained, its classifier is taken off.
        width: of the language model's embeddings.
        config: the resampler's.
        tune_encoder: train it jointly.
    """

    def __init__(self, encoder: Encoder, width: int, config: ResamplerConfig, tune_encoder: bool):
        super().__init__()
        self._encoder, self._tunes_encoder = encoder, tune_encoder
        if tune_encoder:
            timm_model: Any = encoder.model
            timm_model.reset_classifier(0)
            self.encoder = encoder.model.requires_grad_(True)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(encoder.width))
        self.register_buffer("std", torch.ones(encoder.width))
        self.norm = nn.LayerNorm(encoder.width)
        self.resampler = PerceiverResampler(encoder.width, config)
        self.projection = nn.Linear(encoder.width, width)

    def look(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, N, D) the encoder's patch tokens."""
        with torch.set_grad_enabled(self._tunes_encoder and torch.is_grad_enabled()):
            return self._encoder.patch_tokens(images)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """(B, N, D) patch tokens -> (B, K, width) embeddings."""
        return self.projection(self.resampler(self.norm((tokens_BND - self.mean) / self.std)))

    def standardise(self, mean: Tensor, std: Tensor) -> None:
        """From now on bring each channel to mean 0 and deviation 1: (D,) those that it has over the patches of many images."""
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=1e-6))
