"""BEiT (Bao et al., 2022) on timm's BEiT: the encoder sees all places, the hidden ones as a mask token, and tells their words.

What each place of an image shows is said in one word, a visual token, by a tokenizer, a frozen model that is no part of the
encoder; a linear layer predicts the tokens of the hidden places, and the loss is the cross-entropy.

Where public code differs, evomask follows microsoft/unilm (beit/modeling_pretrain.py), the original:
- one table of relative positions for all blocks, as that pretraining has; timm's own default, and that of its fine-tuning, is a
  table a block (`--host.encoder.position-bias per_block`). transformers has both;
- initial weights: normal with a standard deviation of 0.02, cut off at one such deviation, mask and class token and the patch
  embedding included; then the last layers of block i, from 1, are divided by sqrt(2 i). timm cuts off at 2, 100 deviations, and
  leaves the patch embedding to torch; transformers has tokens of zero, and does not divide;
- norms with eps 1e-6. transformers' default is 1e-12; an export says 1e-6;
- a last layer with a bias, as all have.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch
import tyro
from timm.models.beit import Beit
from torch import Tensor, nn
from torch.nn import functional

from evomask.masking import Mask
from evomask.models.beit_encoder import BEiTEncoderConfig, check_beit, mean_patch_attention, with_class_token
from evomask.models.beit_format import beit_for_transformers
from evomask.models.host import Host, HostOutput, TransformersModel
from evomask.models.normalisation import per_channel
from evomask.models.pixels import as_index
from evomask.models.tokenizer import Tokenizer
from evomask.models.tokenizers import load_tokenizer

DALLE_VOCABULARY = 8192
STD = 0.02
"""Of all initial weights, which are cut off at one such deviation."""

NO_TOKENIZER = (
    "BEiT predicts the tokens of a tokenizer: name one, --host.tokenizer RUN-OR-FOLDER or hf:facebook/flava-image-codebook. "
    "`evomask train-tokenizer --data.root IMAGES` makes one of your own images"
)


@dataclass(frozen=True, kw_only=True)
class BEiTConfig:
    """A BEiT.

    Attributes:
        encoder: the BEiT of timm.
        tokenizer: whose tokens are predicted: a run of `evomask train-tokenizer`, a folder, or hf:NAME of the hub, such as
            hf:facebook/flava-image-codebook, DALL-E's.
        tokenizer_sha256: digest of its files. None: whatever they are as the run begins, when it is written down.
        attention_blocks: over how many first blocks of the encoder attention is averaged for the hierarchy.
        scan_stride: look at every so manieth row and column of patches only when asked for attention; 1: at all, as in the
            paper.
        vocabulary: how many tokens the tokenizer has; written down as the run begins.
        kind: which host it is, for who reads it from a file.
    """

    encoder: BEiTEncoderConfig = field(default_factory=BEiTEncoderConfig)
    tokenizer: str | None = None
    tokenizer_sha256: str | None = None
    attention_blocks: int = 6
    scan_stride: int = 1
    vocabulary: tyro.conf.Suppress[int] = DALLE_VOCABULARY
    kind: tyro.conf.Suppress[Literal["beit"]] = "beit"

    def pinned(self) -> "BEiTConfig":
        """The same with what its tokenizer turned out to be.

        Raises:
            ValueError: no tokenizer is named, or it cannot be used, or it is another one than it was.
        """
        if self.tokenizer is None:
            raise ValueError(NO_TOKENIZER)
        tokenizer, sha256 = load_tokenizer(self.tokenizer, self.tokenizer_sha256)
        if tokenizer.in_chans != self.encoder.in_chans:
            channels, own = self.encoder.in_chans, tokenizer.in_chans
            raise ValueError(f"the tokenizer {self.tokenizer} is for images of {own} channels, not {channels}: name another")
        return replace(self, tokenizer_sha256=sha256, vocabulary=tokenizer.vocabulary)

    def build(self) -> "BEiT":
        """The model, freshly initialised. The tokenizer is read once it is asked for."""
        return BEiT(
            self.encoder.build(),
            vocabulary=self.vocabulary,
            tokenizer=self.tokenizer,
            sha256=self.tokenizer_sha256,
            attention_blocks=self.attention_blocks,
            scan_stride=self.scan_stride,
        )


class BEiT(Host):
    """The host. `self.encoder` is the timm model and keeps nothing of the host, so that it can be taken out as it is.

    Args:
        encoder: a BEiT of timm. All of its layers are initialised anew.
        vocabulary: how many tokens there are.
        tokenizer: a name that `load_tokenizer` knows, or the tokenizer itself, frozen. None: it can be built and looked at, not
            trained.
        sha256: the digest that the files of the tokenizer of that name must have; None: any.
        attention_blocks: over how many first blocks of the encoder `affinity` is averaged.
        scan_stride: of the patches that `affinity` looks at, see `mean_patch_attention`.

    Raises:
        ValueError: the encoder is no plain BEiT, or a number is out of range.
    """

    def __init__(
        self,
        encoder: Beit,
        *,
        vocabulary: int = DALLE_VOCABULARY,
        tokenizer: Tokenizer | str | None = None,
        sha256: str | None = None,
        attention_blocks: int = 6,
        scan_stride: int = 1,
    ):
        super().__init__()
        self.grid = check_beit(encoder).patch_embed.grid_size
        if attention_blocks < 1:
            raise ValueError(f"attention_blocks must be at least 1, not {attention_blocks}")
        if not 1 <= scan_stride <= min(self.grid):
            raise ValueError(f"scan_stride must lie between 1 and the rows or columns of patches, not be {scan_stride}")
        self.encoder = encoder
        self.attention_blocks, self.scan_stride = attention_blocks, scan_stride
        self._scan = mean_patch_attention
        self._named = (tokenizer, sha256)
        self.mask_token = nn.Parameter(torch.empty(1, 1, encoder.embed_dim))
        self.head = nn.Linear(encoder.embed_dim, vocabulary)
        self._initialise()

    def _initialise(self) -> None:
        """As microsoft/unilm, see the head of this file."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=STD, a=-STD, b=STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for token in (self.encoder.cls_token, self.mask_token):
            nn.init.trunc_normal_(token, std=STD, a=-STD, b=STD)
        self.encoder.fix_init_weight()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. It is no sub-module: it is not trained, not saved with the host, and stays whole in every process.

        Raises:
            ValueError: none is named, it cannot be read, or is not the one that the digest says.
        """
        named, sha256 = self._named
        if named is None:
            raise ValueError(NO_TOKENIZER)
        return load_tokenizer(named, sha256)[0] if isinstance(named, str) else named

    def compile(self, **options: Any) -> None:
        """See `Host.compile`. The tokenizer is left as it is."""
        for block in self.encoder.blocks:
            block.compile(**options)
        self._scan = torch.compile(mean_patch_attention, **options)

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, N, D) patch embeddings; BEiT's have no positions."""
        return self.encoder.patch_embed(images)

    def affinity(self, tokens: Tensor) -> Tensor:
        """(B, N, D) from `embed` -> (B, N, N) float32, mean attention between patches, all visible; without gradient."""
        return self._scan(self.encoder, tokens, self.attention_blocks, self.scan_stride)

    def target(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, N) long, the tokens of all places."""
        mean_C11, std_C11 = self._normalisation(images)
        return self.tokenizer.to(images.device)(images * std_C11 + mean_C11, self.grid)

    def logits(self, tokens: Tensor, mask: Mask) -> Tensor:
        """(B, N, D) from `embed` -> (B, N - K, vocabulary), of the hidden places in their order."""
        shown_BND = torch.where(mask.masked.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)
        x_BLD = with_class_token(self.encoder, shown_BND)
        bias = None if self.encoder.rel_pos_bias is None else self.encoder.rel_pos_bias()
        for block in self.encoder.blocks:
            x_BLD = block(x_BLD, shared_rel_pos_bias=bias)
        hidden_BKD = x_BLD[:, 1:].gather(1, as_index(mask.masked_indices, x_BLD))
        return self.head(self.encoder.norm(hidden_BKD))

    def forward(self, images: Tensor, tokens: Tensor, mask: Mask) -> HostOutput:
        """Tell the tokens of what the mask hides.

        Args:
            images: (B, C, H, W) normalised.
            tokens: (B, N, D) from `embed`.
            mask: what the encoder sees the mask token of.

        Returns:
            The loss, and logits over tokens of the hidden patches in their order (B, N - K, vocabulary).

        Raises:
            ValueError: the mask is not over these images and patches, or there is no tokenizer.
        """
        self.check_mask(mask, len(tokens))
        logits = self.logits(tokens, mask)
        target = self.target(images).gather(1, mask.masked_indices)
        return HostOutput(functional.cross_entropy(logits.float().flatten(0, 1), target.flatten()), logits)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, mask: Mask) -> Tensor | None:
        """(B, C, H, W) the image of its tokens, those of the hidden patches as the model tells them, for pictures.

        The tokenizer's decoder is given the likeliest token of each hidden place, and the true ones elsewhere; what it makes of
        them is shown in the hidden places. None where it has no decoder.
        """
        tokens = self.embed(images)
        told = self.logits(tokens, mask).argmax(dim=-1)
        ids = self.target(images).scatter(1, mask.masked_indices, told)
        restored = self.tokenizer.decode(ids.unflatten(1, self.grid))
        if restored is None:
            return None
        size = images.shape[-2:]
        if restored.shape[-2:] != size:
            restored = functional.interpolate(restored, size, mode="bicubic", antialias=True)
        mean_C11, std_C11 = self._normalisation(images)
        hidden = mask.masked.unflatten(1, self.grid).unsqueeze(1).float()
        return torch.where(functional.interpolate(hidden, size).bool(), (restored - mean_C11) / std_C11, images)

    def _normalisation(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(C, 1, 1) each."""
        mean_C11, std_C11 = (per_channel(tuple(each), images.device) for each in (self.mean, self.std))
        return mean_C11, std_C11

    def for_transformers(self, mask_ratio: float) -> TransformersModel:
        """See `Host.for_transformers`: what `BeitForMaskedImageModeling` and `BeitModel` load. They draw no masks."""
        return beit_for_transformers(self)
