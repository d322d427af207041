"""MAE (He et al., 2022) around any timm ViT: the encoder sees visible patches, a light decoder restores the other ones."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import tyro
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from evomask.masking import Mask
from evomask.models.host import HostOutput, TransformersModel
from evomask.models.mae_format import mae_for_transformers
from evomask.models.pixels import PixelHost, as_index
from evomask.models.vit import (
    ViTConfig,
    build_vit,
    check_plain_vit,
    embed_patches,
    fix_sincos_positions,
    mean_patch_attention,
    sincos_positions,
    with_prefix,
)


@dataclass(frozen=True, kw_only=True)
class MAEConfig:
    """An MAE.

    Attributes:
        encoder: the ViT.
        decoder_width: embedding dimension of the decoder.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        normalise_pixels: whether a patch's pixels are brought to mean 0 and variance 1 before the loss.
        attention_blocks: over how many first blocks of the encoder attention is averaged for the hierarchy.
        scan_stride: look at every so manieth row and column of patches only when asked for attention; 1: at all, as in the
            paper.
        kind: which host it is, for who reads it from a file.
    """

    encoder: ViTConfig = field(default_factory=ViTConfig)
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    normalise_pixels: bool = True
    attention_blocks: int = 6
    scan_stride: int = 1
    kind: tyro.conf.Suppress[Literal["mae"]] = "mae"

    def build(self) -> "MAE":
        """The model, freshly initialised."""
        return MAE(
            build_vit(self.encoder),
            decoder_width=self.decoder_width,
            decoder_depth=self.decoder_depth,
            decoder_heads=self.decoder_heads,
            normalise_pixels=self.normalise_pixels,
            attention_blocks=self.attention_blocks,
            scan_stride=self.scan_stride,
        )


class MAE(PixelHost):
    """The asymmetric autoencoder. `self.encoder` is the timm model and keeps nothing of MAE, so it can be taken out as it is.

    Args:
        encoder: a plain timm ViT. Its positions become fixed sines and cosines, its linear layers are initialised anew.
        decoder_width, decoder_depth, decoder_heads: the decoder's size.
        normalise_pixels: bring each patch's pixels to mean 0 and variance 1 before the loss.
        attention_blocks: over how many first blocks of the encoder `affinity` is averaged.
        scan_stride: of the patches that `affinity` looks at, see `mean_patch_attention`.

    Raises:
        ValueError: the encoder is no plain ViT, a number is below 1, or the decoder's heads do not divide its width.
    """

    def __init__(
        self,
        encoder: VisionTransformer,
        *,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_heads: int = 16,
        normalise_pixels: bool = True,
        attention_blocks: int = 6,
        scan_stride: int = 1,
    ):
        super().__init__()
        if min(decoder_width, decoder_depth, decoder_heads, attention_blocks, scan_stride) < 1:
            raise ValueError("decoder_width, decoder_depth, decoder_heads, attention_blocks and scan_stride must be at least 1")
        if decoder_width % decoder_heads:
            raise ValueError(f"{decoder_heads} heads do not divide a decoder width of {decoder_width}")
        self.encoder = check_plain_vit(encoder)
        if scan_stride > min(encoder.patch_embed.grid_size):
            raise ValueError(f"a scan_stride of {scan_stride} is more than there are rows or columns of patches")
        self.normalise_pixels = normalise_pixels
        self.attention_blocks, self.scan_stride = attention_blocks, scan_stride
        self._scan = mean_patch_attention
        self.patch_size = encoder.patch_embed.patch_size
        self.grid = encoder.patch_embed.grid_size
        pixels = self.patch_size[0] * self.patch_size[1] * encoder.in_chans

        self.decoder_embed = nn.Linear(encoder.embed_dim, decoder_width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder_width))
        self.decoder_positions = nn.Buffer(sincos_positions(self.grid, decoder_width).unsqueeze(0), persistent=False)
        kinds = [Block] * (decoder_depth - 1) + [QueriedBlock]
        self.decoder_blocks = nn.Sequential(*(kind(decoder_width, decoder_heads, qkv_bias=True) for kind in kinds))
        self.decoder_norm = nn.LayerNorm(decoder_width, eps=1e-6)
        self.decoder_head = nn.Linear(decoder_width, pixels)
        self._initialise()

    def _initialise(self) -> None:
        """As MAE: Xavier-uniform linear layers, the patch embedding like one of them, small normal tokens."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        embedding = self.encoder.patch_embed.proj.weight
        nn.init.xavier_uniform_(embedding.view(len(embedding), -1))
        for token in (self.encoder.cls_token, self.encoder.reg_token, self.mask_token):
            if token is not None:
                nn.init.normal_(token, std=0.02)
        fix_sincos_positions(self.encoder)

    def compile(self, **options: Any) -> None:
        """Compile in place what takes the time: every block by itself, and the scan for attention.

        Names in `state_dict` stay as they are, and blocks of one kind are compiled once.

        Args:
            options: of `torch.compile`.
        """
        for block in (*self.encoder.blocks, *self.decoder_blocks):
            block.compile(**options)
        self._scan = torch.compile(mean_patch_attention, **options)

    def embed(self, images: Tensor) -> Tensor:
        """(B, C, H, W) normalised images -> (B, N, D) patch embeddings with positions."""
        return embed_patches(self.encoder, images)

    def affinity(self, tokens: Tensor) -> Tensor:
        """(B, N, D) from `embed` -> (B, N, N) float32, mean attention between patches, all visible; without gradient."""
        return self._scan(self.encoder, tokens, self.attention_blocks, self.scan_stride)

    def forward(self, images: Tensor, tokens: Tensor, mask: Mask) -> HostOutput:
        """Restore what the mask hides.

        Args:
            images: (B, C, H, W) normalised.
            tokens: (B, N, D) from `embed`.
            mask: what the encoder does not see.

        Returns:
            The loss, and the prediction of the hidden patches in their order (B, N - K, patch height * patch width * C), pixels
            row by row with channels last.

        Raises:
            ValueError: the mask is not over these images and patches.
        """
        self.check_mask(mask, len(tokens))
        latent = self.forward_encoder(tokens, mask)
        prediction = self.forward_decoder(latent, mask)
        return HostOutput(self.forward_loss(images, prediction, mask), prediction)

    def forward_encoder(self, tokens: Tensor, mask: Mask) -> Tensor:
        """(B, N, D) -> (B, prefix + K, D), class token and registers first, then the visible patches in their order."""
        visible_BKD = tokens.gather(1, as_index(mask.keep_indices, tokens))
        return self.encoder.norm(self.encoder.blocks(with_prefix(self.encoder, visible_BKD)))

    def forward_decoder(self, latent: Tensor, mask: Mask) -> Tensor:
        """(B, prefix + K, D) -> (B, N - K, pixels of a patch), the hidden patches. Until then they hold the mask token."""
        x = self.decoder_embed(latent)
        prefix = self.encoder.num_prefix_tokens
        hidden = self.mask_token.to(x.dtype).expand(len(x), mask.masked.shape[1], -1)
        patches = hidden.scatter(1, as_index(mask.keep_indices, x), x[:, prefix:]) + self.decoder_positions
        x = self.decoder_blocks[:-1](torch.cat((x[:, :prefix], patches), dim=1))
        return self.decoder_head(self.decoder_norm(self.decoder_blocks[-1](x, prefix + mask.masked_indices)))

    def forward_loss(self, images: Tensor, prediction: Tensor, mask: Mask) -> Tensor:
        """Mean squared error over the pixels of the masked patches."""
        target = self.hidden_patches(images, mask)
        if self.normalise_pixels:
            mean, std = _patch_statistics(target)
            target = (target - mean) / std
        return functional.mse_loss(prediction.float(), target)

    def for_transformers(self, mask_ratio: float) -> TransformersModel:
        """See `Host.for_transformers`: what `ViTMAEForPreTraining`, `ViTMAEModel` and `ViTModel` load."""
        return mae_for_transformers(self, mask_ratio)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, mask: Mask) -> Tensor:
        """(B, C, H, W) the images with the hidden patches as the model restores them, for pictures.

        A model trained on normalised pixels predicts neither brightness nor contrast of a patch: those of the true patch
        are lent to it, as is usual in such pictures.
        """
        predicted = self(images, self.embed(images), mask).prediction.float()
        if self.normalise_pixels:
            mean, std = _patch_statistics(self.hidden_patches(images, mask))
            predicted = predicted * std + mean
        return self.with_hidden(images, mask, predicted)


class QueriedBlock(Block):
    """timm's block, which gives only those tokens that are asked for; the rest are there as keys and values.

    The last block of the decoder is asked for the hidden patches, since the loss counts no others. That changes nothing of
    what it computes, and saves a quarter of all that follows its keys and values.
    """

    def forward(self, x: Tensor, asked: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B, L, D) tokens and (B, k) long, the numbers of some -> (B, k, D)."""
        attention: Any = self.attn
        query_BLD, key_BLD, value_BLD = attention.qkv(self.norm1(x)).chunk(3, dim=-1)
        query_BkD = query_BLD.gather(1, as_index(asked, query_BLD))
        by_head = (each.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for each in (query_BkD, key_BLD, value_BLD))
        mixed_BkD = functional.scaled_dot_product_attention(*by_head).transpose(1, 2).flatten(2)
        x = x.gather(1, as_index(asked, x)) + attention.proj(mixed_BkD)
        return x + self.mlp(self.norm2(x))


def _patch_statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each patch's values, kept from zero as in MAE."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + 1e-6).sqrt()
