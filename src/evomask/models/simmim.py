"""SimMIM (Xie et al., 2022) around any timm ViT or Swin: the encoder sees all places, the hidden ones as a mask token.

A linear layer restores the pixels of every place of the last map, and the loss is their mean absolute error over the hidden
pixels, as they are normalised for the encoder. The public code (microsoft/SimMIM, models/simmim.py) divides the sum of errors
by the hidden pixels + 1e-5 and by the channels: the same mean, but for a part in 10 million.

Where transformers differs from that code, evomask follows
- microsoft/SimMIM in the loss and in Swin, which are the same in transformers;
- transformers (`ViTForMaskedImageModeling`) in the ViT, which has learnt absolute positions. microsoft/SimMIM's is BEiT's, with
  one table of relative positions for all blocks, and with layer scale;
- microsoft/SimMIM in the initial mask token, normal with a standard deviation of 0.02. It is zero in transformers.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import tyro
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from evomask.masking import Mask
from evomask.models.host import HostOutput, TransformersModel
from evomask.models.pixels import PixelHost
from evomask.models.simmim_format import swin_for_transformers, vit_for_transformers
from evomask.models.swin import CellAttention, Swin, SwinConfig, check_swin, default_cell
from evomask.models.vit import ViTConfig, absolute_positions, check_plain_vit, mean_patch_attention, with_prefix


@dataclass(frozen=True, kw_only=True)
class SimMIMConfig:
    """A SimMIM on a ViT.

    Attributes:
        encoder: the ViT.
        attention_blocks: over how many first blocks of the encoder attention is averaged for the hierarchy.
        scan_stride: look at every so manieth row and column of patches only when asked for attention; 1: at all, as in the
            paper.
        kind: which host it is, for who reads it from a file.
    """

    encoder: ViTConfig = field(default_factory=ViTConfig)
    attention_blocks: int = 6
    scan_stride: int = 1
    kind: tyro.conf.Suppress[Literal["simmim"]] = "simmim"

    def build(self) -> "ViTSimMIM":
        """The model, freshly initialised."""
        return ViTSimMIM(self.encoder.build(), attention_blocks=self.attention_blocks, scan_stride=self.scan_stride)


@dataclass(frozen=True, kw_only=True)
class SwinSimMIMConfig:
    """A SimMIM on a Swin, v1 or v2.

    Attributes:
        encoder: the Swin.
        cell: side in pixels of the cells that are hidden and that trees are made of; patches divide it, and it divides the
            image. None: of a token of the last stage that has 12 a side, which is 16 px, 14 x 14 cells, at 224 px.
        attention_blocks: over how many first blocks of the encoder attention is averaged for the hierarchy.
        kind: which host it is, for who reads it from a file.
    """

    encoder: SwinConfig = field(default_factory=SwinConfig)
    cell: int | None = None
    attention_blocks: int = 6
    kind: tyro.conf.Suppress[Literal["swin_simmim"]] = "swin_simmim"

    def build(self) -> "SwinSimMIM":
        """The model, freshly initialised."""
        return SwinSimMIM(self.encoder.build(), cell=self.cell, attention_blocks=self.attention_blocks)


class SimMIM(PixelHost):
    """What both have in common. `self.encoder` is the timm model and keeps nothing of SimMIM, so it can be taken out as it is.

    Attributes:
        stride: side in pixels of a place of the encoder's last map.

    Args:
        encoder: the timm model, with its own initial weights.
        attention_blocks: over how many first blocks of the encoder `affinity` is averaged.

    Raises:
        ValueError: a number is below 1.
    """

    def __init__(self, encoder: Any, *, stride: int, attention_blocks: int):
        super().__init__()
        if attention_blocks < 1:
            raise ValueError(f"attention_blocks must be at least 1, not {attention_blocks}")
        self.encoder = encoder
        self.attention_blocks, self.stride = attention_blocks, stride
        self.mask_token = nn.Parameter(torch.empty(1, 1, encoder.patch_embed.proj.out_channels))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        self.head = nn.Linear(encoder.num_features, stride**2 * encoder.in_chans)

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> patch embeddings without positions, (B, N, D), of Swin (B, h, w, D)."""
        return self.encoder.patch_embed(images)

    @abstractmethod
    def last_map(self, tokens: Tensor, masked_BN: Tensor) -> Tensor:
        """What `embed` gave, and what of it is hidden -> (B, h, w, D), what the encoder makes of it, after its last norm."""

    def restore(self, tokens: Tensor, mask: Mask) -> Tensor:
        """What `embed` gave -> (B, C, H, W), every pixel as the model restores it, normalised as the images."""
        pixels_BhwP = self.head(self.last_map(tokens, mask.masked))
        return functional.pixel_shuffle(pixels_BhwP.permute(0, 3, 1, 2), self.stride)

    def forward(self, images: Tensor, tokens: Tensor, mask: Mask) -> HostOutput:
        """Restore what the mask hides.

        Args:
            images: (B, C, H, W) normalised.
            tokens: from `embed`.
            mask: what the encoder sees the mask token of.

        Returns:
            The loss, and the prediction of the hidden patches in their order (B, N - K, patch height * patch width * C), pixels
            row by row with channels last.

        Raises:
            ValueError: the mask is not over these images and patches.
        """
        self.check_mask(mask, len(tokens))
        prediction = self.hidden_patches(self.restore(tokens, mask), mask)
        return HostOutput(functional.l1_loss(prediction.float(), self.hidden_patches(images, mask)), prediction)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, mask: Mask) -> Tensor:
        """(B, C, H, W) the images with the hidden patches as the model restores them, for pictures."""
        return self.with_hidden(images, mask, self(images, self.embed(images), mask).prediction.float())

    def _with_mask_token(self, tokens: Tensor, masked: Tensor) -> Tensor:
        """The tokens (..., D), where `masked` (...) is true the mask token instead."""
        return torch.where(masked.unsqueeze(-1), self.mask_token.to(tokens.dtype), tokens)


class ViTSimMIM(SimMIM):
    """SimMIM on a plain timm ViT; for the arguments see `SimMIM`.

    Args:
        scan_stride: of the patches that `affinity` looks at, see `mean_patch_attention`.

    Raises:
        ValueError: the encoder is no plain ViT with square patches, or a number is out of range.
    """

    def __init__(self, encoder: VisionTransformer, *, attention_blocks: int = 6, scan_stride: int = 1):
        height, width = check_plain_vit(encoder).patch_embed.patch_size
        if height != width:
            raise ValueError(f"SimMIM needs square patches, not of {height} x {width} px")
        if not 1 <= scan_stride <= min(encoder.patch_embed.grid_size):
            raise ValueError(f"scan_stride must lie between 1 and the rows or columns of patches, not be {scan_stride}")
        super().__init__(encoder, stride=height, attention_blocks=attention_blocks)
        self.scan_stride = scan_stride
        self.grid = encoder.patch_embed.grid_size
        self.patch_size = (height, width)
        self._scan = mean_patch_attention

    def compile(self, **options: Any) -> None:
        """See `Host.compile`."""
        for block in self.encoder.blocks:
            block.compile(**options)
        self._scan = torch.compile(mean_patch_attention, **options)

    def affinity(self, tokens: Tensor) -> Tensor:
        """(B, N, D) from `embed` -> (B, N, N) float32, mean attention between patches, all visible; without gradient."""
        return self._scan(self.encoder, self._with_positions(tokens), self.attention_blocks, self.scan_stride)

    def last_map(self, tokens: Tensor, masked_BN: Tensor) -> Tensor:
        """See `SimMIM.last_map`."""
        patches_BND = self._with_positions(self._with_mask_token(tokens, masked_BN))
        x = self.encoder.norm(self.encoder.blocks(with_prefix(self.encoder, patches_BND)))
        return x[:, self.encoder.num_prefix_tokens :].unflatten(1, self.grid)

    def _with_positions(self, tokens_BND: Tensor) -> Tensor:
        return tokens_BND + absolute_positions(self.encoder)[:, -tokens_BND.shape[1] :]

    def for_transformers(self, mask_ratio: float) -> TransformersModel:
        """See `Host.for_transformers`: what `ViTForMaskedImageModeling` and `ViTModel` load. They draw no masks."""
        return vit_for_transformers(self)


class SwinSimMIM(SimMIM):
    """SimMIM on a timm Swin, v1 or v2; for the arguments see `SimMIM`.

    What is hidden are cells of the image, not tokens, see `swin.py`.

    Args:
        cell: side of a cell in pixels, see `SwinSimMIMConfig`.

    Raises:
        ValueError: the encoder is no plain Swin with square patches, its last map or the cells do not divide the image, patches
            do not divide the cells, or a number is below 1.
    """

    def __init__(self, encoder: Swin, *, cell: int | None = None, attention_blocks: int = 6):
        patch, width = check_swin(encoder).patch_embed.patch_size
        if patch != width:
            raise ValueError(f"SimMIM needs square patches, not of {patch} x {width} px")
        stride = patch * 2 ** (encoder.num_layers - 1)
        height, width = encoder.patch_embed.img_size
        if height % stride or width % stride:
            raise ValueError(
                f"a place of the Swin's last map has {stride} px, which do not divide an image of {height} x {width} px: "
                "choose another --host.encoder.image-size, or fewer stages (--host.encoder.depths, --host.encoder.heads)"
            )
        cell = default_cell(encoder) if cell is None else cell
        if cell % patch:
            raise ValueError(f"patches of {patch} px do not divide cells of {cell} px")
        super().__init__(encoder, stride=stride, attention_blocks=attention_blocks)
        self.cell_attention = CellAttention(encoder, cell, attention_blocks)
        self.grid = self.cell_attention.grid
        self.patch_size = (cell, cell)
        self._tokens_a_side = cell // patch

    def compile(self, **options: Any) -> None:
        """See `Host.compile`."""
        for stage in self.encoder.layers:
            for block in stage.blocks:
                block.compile(**options)
        self.cell_attention.compile(**options)

    def affinity(self, tokens: Tensor) -> Tensor:
        """(B, h, w, D) from `embed` -> (B, N, N) float32, mean attention between cells, all visible; without gradient."""
        return self.cell_attention(self.encoder, tokens)

    def last_map(self, tokens: Tensor, masked_BN: Tensor) -> Tensor:
        """See `SimMIM.last_map`."""
        masked_BHW = masked_BN.unflatten(1, self.grid)
        masked_Bhw = masked_BHW.repeat_interleave(self._tokens_a_side, 1).repeat_interleave(self._tokens_a_side, 2)
        return self.encoder.norm(self.encoder.layers(self._with_mask_token(tokens, masked_Bhw)))

    def for_transformers(self, mask_ratio: float) -> TransformersModel:
        """See `Host.for_transformers`: what `SwinForMaskedImageModeling` and `SwinModel`, or those of Swinv2, load."""
        return swin_for_transformers(self)
