"""The Perceiver resampler (Alayrac et al., 2022): any number of image tokens -> a few latents.

It is that of transformers' Idefics, whose code is no public interface: with the same weights it gives the same latents
(`tests/models/test_resampler.py`). GVT's differs from Idefics' in its activation alone, GELU instead of ReLU; its embedding of
the image's number is, for a single image, part of the bias of the norm before it.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


@dataclass(frozen=True, kw_only=True)
class ResamplerConfig:
    """The size of a resampler; the defaults are GVT's (Wang et al., 2023).

    Attributes:
        latents: how many tokens stand for an image.
        depth: blocks.
        heads: of attention.
        head_width: of one head.
        activation: in the MLPs.
        latent_std: deviation of the initial latents. The Perceiver (Jaegle et al., 2021) has 0.02: with 1, what they begin as
            outweighs what they see of an image, and they learn to look later.
    """

    latents: int = 32
    depth: int = 6
    heads: int = 16
    head_width: int = 96
    activation: Literal["gelu", "relu"] = "gelu"
    latent_std: float = 1.0

    def __post_init__(self):
        for name in ("latents", "depth", "heads", "head_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"--resampler.{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
        if self.latent_std <= 0:
            raise ValueError(f"--resampler.latent-std must be above 0, not {self.latent_std}")


class PerceiverResampler(nn.Module):
    """Latents that look at the tokens of an image, and at each other, block by block.

    Args:
        width: D, of a token and of a latent.
        config: its size.
    """

    def __init__(self, width: int, config: ResamplerConfig):
        super().__init__()
        self.latents = nn.Parameter(config.latent_std * torch.randn(config.latents, width))
        self.blocks = nn.ModuleList(ResamplerBlock(width, config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BND: Tensor) -> Tensor:
        """(B, N, D) tokens -> (B, K, D) latents, K of `ResamplerConfig.latents`."""
        latents_BKD = self.latents.expand(len(tokens_BND), -1, -1)
        for block in self.blocks:
            latents_BKD = block(tokens_BND, latents_BKD)
        return self.norm(latents_BKD)


class ResamplerBlock(nn.Module):
    """Attention and an MLP, each added to the latents."""

    def __init__(self, width: int, config: ResamplerConfig):
        super().__init__()
        self.attn = LatentAttention(width, config.heads, config.head_width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            ACTIVATIONS[config.activation](),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, tokens_BND: Tensor, latents_BKD: Tensor) -> Tensor:
        """(B, N, D), (B, K, D) -> (B, K, D)."""
        latents_BKD = latents_BKD + self.attn(tokens_BND, latents_BKD)
        return latents_BKD + self.mlp(latents_BKD)


class LatentAttention(nn.Module):
    """Attention of which latents are the queries; keys and values are the tokens and the latents themselves."""

    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self._heads, inner = heads, heads * head_width
        self.norm_tokens, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, tokens_BND: Tensor, latents_BKD: Tensor) -> Tensor:
        """(B, N, D), (B, K, D) -> (B, K, D)."""
        latents = self.norm_latents(latents_BKD)
        seen = torch.cat((self.norm_tokens(tokens_BND), latents), dim=1)
        query, key, value = (
            part.unflatten(2, (self._heads, -1)).transpose(1, 2)
            for part in (self.query(latents), self.key(seen), self.value(seen))
        )
        return self.out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))
