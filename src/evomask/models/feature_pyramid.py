"""Maps of four sizes from an encoder of timm, as segmenters and detectors take them.

A plain ViT or BEiT has one size of map: those after four of its blocks are brought to four sizes by transposed convolutions and
pooling (BEiT; Bao et al., 2022). A Swin has its own sizes.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from timm.layers.norm import LayerNorm2d
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.layers.pos_embed_rel import resize_rel_pos_bias_table
from timm.models.beit import Beit, gen_relative_position_index
from timm.models.swin_transformer import SwinTransformer
from timm.models.swin_transformer_v2 import SwinTransformerV2
from torch import Tensor, nn
from torch.nn import functional

from evomask.models.classifier import set_drop_path
from evomask.models.swin import check_swin
from evomask.models.vit import absolute_positions, check_plain_vit, with_prefix

SEGMENTATION_BLOCKS = (3, 5, 7, 11)
"""Of 12, from 0: after which segmenters take the maps of a ViT (BEiT, MAE)."""


class FeaturePyramid(nn.Module):
    """(B, C, H, W) normalised images of any size -> four maps (B, channels[i], H', W'), the largest first.

    A map's height is that of the image, filled up with zeros below and on the right to a multiple of `multiple`, over
    `strides[i]`. Positions, and BEiT's tables of relative ones, are interpolated to each image; a Swin's windows stay as they
    are. The encoder is taken over: its classifier and what lies behind the last map are dropped. The last map has passed the
    encoder's own final norm; those before it are as they leave a ViT's blocks, and in a Swin have a norm of their own.

    Args:
        encoder: a plain ViT, BEiT or Swin (v1, v2) of timm, for images of any size. A Swin of three stages gets its fourth map
            by pooling its third.
        image_size: height and width of most images: parameters that depend on the size are interpolated to it once.
        blocks: after which four blocks of a ViT of 12, from 0, maps are taken; of another depth, in proportion. A Swin has its
            stages.
        drop_path: stochastic depth rate of the encoder's last block.
        window: side in patches of the windows in which a ViT attends, but in the blocks whose maps are taken; None: to all.
            Class token and registers are in each window, and leave a block as the mean of what each has made of them.
        frozen: keep the encoder as it is, and train only what is new.

    Attributes:
        encoder: the model of timm, with its own names.
        channels: of each map.
        strides: of each map in pixels; whole where 4 divides the patch.
        multiple: what sides of images are filled up to.

    Raises:
        ValueError: another kind of encoder, or one that does not fit.
    """

    def __init__(
        self,
        encoder: nn.Module,
        image_size: tuple[int, int],
        *,
        blocks: Sequence[int] = SEGMENTATION_BLOCKS,
        drop_path: float = 0.0,
        window: int | None = None,
        frozen: bool = False,
    ):
        super().__init__()
        self._is_swin, self._is_beit = isinstance(encoder, (SwinTransformer, SwinTransformerV2)), type(encoder) is Beit
        known = check_swin(encoder) if self._is_swin else encoder if self._is_beit else check_plain_vit(encoder)
        self.encoder: Any = known
        height, width = self.encoder.patch_embed.patch_size
        if height != width:
            raise ValueError(f"maps are made of square patches, not of {height} x {width} px")
        if window is not None and (self._is_swin or self._is_beit):
            raise ValueError(f"attention within windows is for plain ViTs, not for a {type(encoder).__name__}")
        if window is not None and window < 1:
            raise ValueError(f"windows are at least 1 patch wide, not {window}")
        self.window, self.frozen = window, frozen
        self.encoder.reset_classifier(0, "")
        self._patch = height
        if self._is_swin:
            self.multiple, self.strides = 8 * height, tuple(height * factor for factor in (1, 2, 4, 8))
            self._set_up_swin(image_size)
        else:
            self.multiple, self.strides = 2 * height, tuple(height * factor // 4 for factor in (1, 2, 4, 8))
            if height % 4:
                self.strides = tuple(height * factor / 4 for factor in (1, 2, 4, 8))
            self._set_up_vit(image_size, blocks)
        set_drop_path(self.encoder, 0.0 if frozen else drop_path)
        self.encoder.requires_grad_(not frozen)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Four maps, (B, channels[i], H', W')."""
        height, width = images.shape[-2:]
        right, below = -width % self.multiple, -height % self.multiple
        images = functional.pad(images, (0, right, 0, below))
        maps = self._swin_maps(images) if self._is_swin else self._vit_maps(images)
        return [adaptor(each) for adaptor, each in zip(self.adaptors, maps, strict=True)]

    def train(self, mode: bool = True) -> "FeaturePyramid":
        """As any module's, but that a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def _filled_up(self, image_size: tuple[int, int]) -> tuple[int, int]:
        height, width = (math.ceil(side / self.multiple) * self.multiple for side in image_size)
        return height, width

    def _set_up_vit(self, image_size: tuple[int, int], blocks: Sequence[int]) -> None:
        encoder, depth = self.encoder, len(self.encoder.blocks)
        if len(blocks) != 4 or sorted(blocks) != list(blocks) or not 0 <= blocks[0] <= blocks[-1] < 12:
            raise ValueError(
                f"maps are taken after four of 12 blocks, rising from 0 to 11, not after {', '.join(map(str, blocks))}"
            )
        self.taken = tuple(math.ceil((number + 1) * depth / 12) - 1 for number in blocks)
        encoder.blocks = encoder.blocks[: self.taken[-1] + 1]
        if isinstance(encoder.norm, nn.Identity):  # timm has called it fc_norm, where the mean over patches was classified
            encoder.norm = encoder.fc_norm
        encoder.fc_norm = nn.Identity()
        with _without_advice():
            encoder.set_input_size(img_size=self._filled_up(image_size))
        encoder.patch_embed.strict_img_size = False
        if self._is_beit:
            for block in encoder.blocks:
                block.attn._get_rel_pos_bias = MethodType(_relative_bias_of_grid, block.attn)
        width = encoder.embed_dim
        self.channels = (width,) * 4
        self.adaptors = nn.ModuleList(
            [
                nn.Sequential(_doubled(width), LayerNorm2d(width), nn.GELU(), _doubled(width)),
                _doubled(width),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )

    def _vit_maps(self, images: Tensor) -> list[Tensor]:
        encoder = self.encoder
        grid = images.shape[2] // self._patch, images.shape[3] // self._patch
        tokens_BND = encoder.patch_embed(images)
        tokens = (_beit_tokens if self._is_beit else _vit_tokens)(encoder, tokens_BND, grid)
        shared = {}
        if self._is_beit:
            for block in encoder.blocks:
                block.attn.grid = grid
            if encoder.rel_pos_bias is not None:
                shared = {"shared_rel_pos_bias": _relative_bias(encoder.rel_pos_bias, grid)}
        maps: dict[int, Tensor] = {}
        for number, block in enumerate(encoder.blocks):
            if self.window is None or number in self.taken:
                tokens = block(tokens, **shared)
            else:
                tokens = _in_windows(block, tokens, grid, self.window)
            if number in self.taken:
                is_last = number == self.taken[-1]
                patches_BND = (encoder.norm(tokens) if is_last else tokens)[:, -grid[0] * grid[1] :]
                maps[number] = patches_BND.mT.unflatten(2, grid).contiguous()
        return [maps[number] for number in self.taken]

    def _set_up_swin(self, image_size: tuple[int, int]) -> None:
        swin = self.encoder
        stages = len(swin.layers)
        if stages not in (3, 4):
            raise ValueError(f"four maps are made of a Swin of 4 stages, or of 3, not of {stages}")
        # At another size, timm would scale the windows along; they stay, and are shifted wherever there is room again.
        with _without_advice():
            swin.set_input_size(img_size=self._filled_up(image_size), window_size=swin.layers[0].blocks[0].window_size)
        swin.patch_embed.strict_img_size = False
        for stage in swin.layers:
            for block in stage.blocks:
                block.dynamic_mask = True
        widths = [stage.blocks[0].dim for stage in swin.layers]
        self.norms = nn.ModuleList([*(nn.LayerNorm(width) for width in widths[:-1]), nn.Identity()])
        self.channels = (*widths, *widths[-1:] * (4 - stages))
        self.adaptors = nn.ModuleList(
            [nn.Identity(), nn.Identity(), nn.Identity(), nn.Identity() if stages == 4 else nn.MaxPool2d(2)]
        )

    def _swin_maps(self, images: Tensor) -> list[Tensor]:
        swin = self.encoder
        tokens_BHWD = swin.patch_embed(images)
        maps = []
        for stage, norm in zip(swin.layers, self.norms, strict=True):
            tokens_BHWD = stage(tokens_BHWD)
            own_norm = swin.norm if isinstance(norm, nn.Identity) else norm
            maps.append(own_norm(tokens_BHWD).permute(0, 3, 1, 2).contiguous())
        return maps + maps[-1:] * (4 - len(maps))


@contextmanager
def _without_advice() -> Iterator[None]:
    """Without torch's on timm's code, where it interpolates tables by relative position."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _doubled(width: int) -> nn.Module:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)


def _vit_tokens(encoder: Any, tokens_BND: Tensor, grid: tuple[int, int]) -> Tensor:
    """What block 1 of a plain ViT is given."""
    own = encoder.patch_embed.grid_size
    positions_1ND = absolute_positions(encoder)[:, -own[0] * own[1] :]
    return with_prefix(encoder, tokens_BND + resample_abs_pos_embed(positions_1ND, list(grid), list(own), num_prefix_tokens=0))


def _beit_tokens(encoder: Any, tokens_BND: Tensor, grid: tuple[int, int]) -> Tensor:
    """What block 1 of a BEiT is given."""
    tokens = torch.cat((encoder.cls_token.expand(len(tokens_BND), -1, -1), tokens_BND), dim=1)
    if encoder.pos_embed is None:
        return tokens
    return tokens + resample_abs_pos_embed(
        encoder.pos_embed, list(grid), list(encoder.patch_embed.grid_size), num_prefix_tokens=1
    )


def _relative_bias(owner: Any, grid: tuple[int, int]) -> Tensor:
    """(heads, 1 + N, 1 + N) of a table by relative position, which is interpolated to a grid where it is for another."""
    table, rows, columns = owner.relative_position_bias_table, *grid
    index = owner.relative_position_index
    if grid != tuple(owner.window_size):
        entries = (2 * rows - 1) * (2 * columns - 1) + 3
        with _without_advice():
            table = resize_rel_pos_bias_table(table, grid, (entries, table.shape[1]), tuple(owner.window_size))
        index = gen_relative_position_index(grid, device=table.device)
    return table[index].permute(2, 0, 1).contiguous()


def _relative_bias_of_grid(attention: Any) -> Tensor:
    """In place of the method of timm that knows one grid only."""
    return _relative_bias(attention, attention.grid).unsqueeze(0)


def _in_windows(block: nn.Module, tokens: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """(B, prefix + N, D) through a block that sees one window at a time."""
    (rows, columns), (high, wide) = grid, (min(side, length) for length in grid)
    prefix, patches = tokens.split((tokens.shape[1] - rows * columns, rows * columns), dim=1)
    below, right = -rows % high, -columns % wide
    patches = functional.pad(patches.unflatten(1, grid), (0, 0, 0, right, 0, below))
    down, across = patches.shape[1] // high, patches.shape[2] // wide
    windows = _cut(patches, high, wide)
    prefixes = prefix.repeat_interleave(down * across, dim=0)
    real = None
    if below or right:
        inside = functional.pad(tokens.new_ones(1, rows, columns, 1, dtype=torch.bool), (0, 0, 0, right, 0, below))
        seen = _cut(inside, high, wide).squeeze(-1).repeat(len(tokens), 1)
        real = functional.pad(seen, (prefixes.shape[1], 0), value=True)[:, None, None, :]
    mixed = block(torch.cat((prefixes, windows), dim=1), attn_mask=real)
    prefixes, windows = mixed.split((prefixes.shape[1], windows.shape[1]), dim=1)
    together = windows.view(len(tokens), down, across, high, wide, -1).transpose(2, 3).reshape(*patches.shape)
    return torch.cat((prefixes.unflatten(0, (len(tokens), -1)).mean(dim=1), together[:, :rows, :columns].flatten(1, 2)), dim=1)


def _cut(patches_BHWD: Tensor, high: int, wide: int) -> Tensor:
    """(B, H, W, D) -> (B * windows, high * wide, D)."""
    cut = patches_BHWD.unflatten(2, (-1, wide)).unflatten(1, (-1, high)).transpose(2, 3)  # B down across high wide D
    return cut.flatten(3, 4).flatten(0, 2)
