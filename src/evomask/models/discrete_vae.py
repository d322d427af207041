"""A tokenizer that is trained on the user's own images: a convolutional autoencoder with few numbers a place, all rounded.

Finite scalar quantisation (Mentzer et al., 2024): each of a few channels is squashed into a range and rounded to one of so many
levels; what word a place has follows from the levels of its channels. There is no codebook to be learnt, so that none has to be
kept alive or brought into line between processes, and all that is trained is trained by its gradient.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from evomask.models.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class DiscreteVAEConfig:
    """A tokenizer.

    Attributes:
        levels: of each channel at a place; their product is the number of tokens. 8 5 5 5: 1,000; 7 5 5 5 5: 4,375;
            8 8 8 6 5: 15,360.
        stride: side in pixels of a place, a power of 2.
        in_chans: channels of an image.
        width: channels of the layers at the resolution of the tokens; half as many at twice the resolution, and so on.
        blocks: residual blocks at each resolution.
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)
    stride: int = 8
    in_chans: int = 3
    width: int = 128
    blocks: int = 1

    def __post_init__(self):
        if not self.levels or min(self.levels) < 2:
            raise ValueError(f"--model.levels are at least 2 each, not {self.levels}")
        if self.stride < 2 or self.stride & (self.stride - 1):
            raise ValueError(f"--model.stride must be a power of 2, from 2, not {self.stride}")
        if self.in_chans < 1 or self.blocks < 0:
            raise ValueError(f"--model.in-chans must be at least 1 and --model.blocks 0, not {self.in_chans}, {self.blocks}")
        if self.width < self.stride or self.width % (self.stride // 2):
            raise ValueError(f"--model.width must be a multiple of half the stride and not below it, not {self.width}")

    @property
    def vocabulary(self) -> int:
        """The number of tokens."""
        return math.prod(self.levels)

    def build(self) -> "DiscreteVAE":
        """The model, freshly initialised."""
        return DiscreteVAE(self)


class DiscreteVAE(Tokenizer):
    """Encoder, quantiser and decoder.

    Args:
        config: their sizes.
    """

    def __init__(self, config: DiscreteVAEConfig):
        super().__init__()
        self.config = config
        self.stride, self.in_chans = config.stride, config.in_chans
        self.quantise = ScalarQuantiser(config.levels)
        self.vocabulary = config.vocabulary
        halvings = int(math.log2(config.stride))
        widths = [config.width >> (halvings - 1 - halving) for halving in range(halvings)]  # from fine to coarse

        down: list[nn.Module] = []
        for before, after in zip([config.in_chans, *widths], widths, strict=False):
            down += [nn.Conv2d(before, after, 4, stride=2, padding=1), *_residual_blocks(after, config.blocks)]
        self.encoder = nn.Sequential(*down, nn.SiLU(), nn.Conv2d(widths[-1], len(config.levels), 1))
        up: list[nn.Module] = [nn.Conv2d(len(config.levels), widths[-1], 1)]
        for before, after in zip(widths[::-1], [*widths[-2::-1], config.in_chans], strict=True):
            up += [
                *_residual_blocks(before, config.blocks),
                nn.SiLU(),
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=1),
            ]
        self.decoder = nn.Sequential(*up)
        self._initialise()

    def _initialise(self) -> None:
        """So that latents are spread over their levels from the start: a codebook that begins in one token may stay there."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)  # pyright: ignore[reportArgumentType]
            if isinstance(module, _ResidualBlock):
                nn.init.zeros_(module.second.weight)

    def autoencode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, height, width) in [0, 1] -> the same restored, not cut off at 0 and 1; and (B, H, W) long tokens."""
        codes, ids = self.quantise(self.encoder(2 * pixels - 1))
        return (self.decoder(codes) + 1) / 2, ids

    def ids(self, pixels: Tensor) -> Tensor:
        """See `Tokenizer.ids`."""
        return self.quantise(self.encoder(2 * pixels - 1))[1]

    @torch.no_grad()
    def decode(self, ids: Tensor) -> Tensor:
        """See `Tokenizer.decode`."""
        return ((self.decoder(self.quantise.codes_of(ids)) + 1) / 2).clamp(0, 1)


class ScalarQuantiser(nn.Module):
    """Rounds each channel to one of its levels; in the backward pass as if it did not (Mentzer et al., 2024, appendix A).

    Args:
        levels: of each channel.
    """

    levels_d: Tensor
    basis_d: Tensor

    def __init__(self, levels: tuple[int, ...]):
        super().__init__()
        self.register_buffer("levels_d", torch.tensor(levels), persistent=False)
        basis = [math.prod(levels[:channel]) for channel in range(len(levels))]
        self.register_buffer("basis_d", torch.tensor(basis), persistent=False)

    def forward(self, latents_BdHW: Tensor) -> tuple[Tensor, Tensor]:
        """(B, d, H, W) any numbers -> (B, d, H, W) codes in [-1, 1], and (B, H, W) long tokens."""
        latents = latents_BdHW.float().movedim(1, -1)
        # An even number of levels lies half a step beside the middle, so that the middle is no boundary between two.
        half = (self.levels_d - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels_d % 2 == 0, 0.5, 0.0)
        bounded = (latents + (offset / half).atanh()).tanh() * half - offset
        rounded = bounded + (bounded.round() - bounded).detach()
        ids = ((rounded.detach() + self.levels_d // 2).round().long() * self.basis_d).sum(dim=-1)
        return (rounded / (self.levels_d // 2)).movedim(-1, 1).to(latents_BdHW.dtype), ids

    def codes_of(self, ids_BHW: Tensor) -> Tensor:
        """(B, H, W) long -> (B, d, H, W), the codes that have these tokens."""
        steps = ids_BHW.unsqueeze(-1) // self.basis_d % self.levels_d
        half = self.levels_d // 2
        return ((steps - half) / half).movedim(-1, 1)


class _ResidualBlock(nn.Module):
    """Two convolutions beside the way straight on."""

    def __init__(self, width: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(functional.silu(self.first(functional.silu(x))))


def _residual_blocks(width: int, count: int) -> list[nn.Module]:
    return [_ResidualBlock(width) for _ in range(count)]
