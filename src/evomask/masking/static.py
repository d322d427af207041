"""Masks that do not look at the image: random (MAE), grid, block (BEiT), cells (SimMIM). What evolved masks are compared with.

The facts about the original works are those of their public code; each is written anew here, for whole batches.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from evomask.masking.mask import Mask, check_ratio, masked_count
from evomask.masking.noise import uniform_stream


@dataclass(frozen=True)
class RandomMasking:
    """Single patches at random, as MAE does: the patches of least noise stay visible.

    Attributes:
        ratio: share of patches to hide; `int(N * ratio)` in each image.
    """

    ratio: float = 0.75

    needs_affinity: ClassVar[bool] = False

    def __post_init__(self):
        check_ratio(self.ratio)

    def __call__(self, noise: Tensor, grid: tuple[int, int], progress: float = 0.0, affinity: Tensor | None = None) -> Mask:
        """See `MaskingStrategy`; progress and affinity are not used."""
        return Mask.highest(noise, masked_count(noise, grid, self.ratio))


@dataclass(frozen=True)
class GridMasking:
    """A regular lattice (the paper's Fig. 1b): the same places of every 2 x 2 cell are hidden.

    At a ratio of 0.75 on an even grid one of the four places, drawn once an image, stays visible. Where the ratio does not
    hide whole places, single patches of one further place make up the count.

    Attributes:
        ratio: share of patches to hide; `int(N * ratio)` in each image.
    """

    ratio: float = 0.75

    needs_affinity: ClassVar[bool] = False

    def __post_init__(self):
        check_ratio(self.ratio)

    def __call__(self, noise: Tensor, grid: tuple[int, int], progress: float = 0.0, affinity: Tensor | None = None) -> Mask:
        """See `MaskingStrategy`; progress and affinity are not used."""
        count = masked_count(noise, grid, self.ratio)
        rows, columns = grid
        place_HW = torch.arange(rows).unsqueeze(1) % 2 * 2 + torch.arange(columns) % 2
        rank_B4 = uniform_stream(noise, 4).argsort(dim=1)
        rank_BN = rank_B4[:, place_HW.flatten().to(noise.device)]
        return Mask.highest(rank_BN + noise, count)


@dataclass(frozen=True)
class CellMasking:
    """Square cells of several patches at random, as SimMIM does: `ceil(cells * ratio)` whole cells are hidden.

    SimMIM's cells are 32 px: two patches of 16 px (224 px: 30 of 49 cells, 120 of 196 patches), eight of 4 px (192 px: 22 of
    36 cells, 1,408 of 2,304 patches). As cells are whole and SimMIM rounds up, more than `int(N * ratio)` may be hidden.

    Attributes:
        ratio: share of cells to hide.
        cell: patches along the side of a cell.
    """

    ratio: float = 0.6
    cell: int = 2

    needs_affinity: ClassVar[bool] = False

    def __post_init__(self):
        check_ratio(self.ratio)
        if self.cell < 1:
            raise ValueError(f"a cell is at least 1 patch wide, not {self.cell}")

    def __call__(self, noise: Tensor, grid: tuple[int, int], progress: float = 0.0, affinity: Tensor | None = None) -> Mask:
        """See `MaskingStrategy`; progress and affinity are not used.

        Raises:
            ValueError: cells do not tile the grid, or the ratio hides every cell.
        """
        masked_count(noise, grid, self.ratio)
        rows, columns = grid
        if rows % self.cell or columns % self.cell:
            raise ValueError(
                f"cells of {self.cell} x {self.cell} patches do not tile a grid of {rows} x {columns}: "
                "choose a cell that divides both"
            )
        cells = rows * columns // self.cell**2
        hidden_cells = math.ceil(cells * self.ratio)
        if hidden_cells == cells:
            raise ValueError(f"a mask ratio of {self.ratio} hides all of {cells} cells: lower it or use smaller cells")
        noise_of_cell = noise.view(-1, rows, columns)[:, :: self.cell, :: self.cell]
        hidden_BHW = Mask.highest(noise_of_cell.flatten(1), hidden_cells).masked.view_as(noise_of_cell)
        masked_BHW = hidden_BHW.repeat_interleave(self.cell, dim=1).repeat_interleave(self.cell, dim=2)
        return Mask(masked_BHW.flatten(1), hidden_cells * self.cell**2)


@dataclass(frozen=True)
class BlockMasking:
    """Rectangles placed one after the other until the target is reached, as BEiT does.

    Each rectangle: an area uniform between `min_block` and what is left, an aspect ratio log-uniform in [min_aspect,
    1 / min_aspect], a place uniform in the grid; it is taken if it newly hides at least one patch and at most what is left.
    Ten that are not end the search. BEiT leaves such images short of the target (a third of them, by 1 to 11 of 75 patches);
    a batch has to be rectangular, so here single patches, those of most noise, make up the exact count.

    Attributes:
        ratio: share of patches to hide; `int(N * ratio)` in each image. BEiT hides 75 of 196.
        min_block: least area of a rectangle, in patches. BEiT 16, DINOv2 4.
        min_aspect: least ratio of height to width.
    """

    ratio: float = 0.4
    min_block: int = 16
    min_aspect: float = 0.3

    needs_affinity: ClassVar[bool] = False

    def __post_init__(self):
        check_ratio(self.ratio)
        if self.min_block < 1:
            raise ValueError(f"a block has at least 1 patch, not {self.min_block}")
        if not 0 < self.min_aspect <= 1:
            raise ValueError(f"the least aspect ratio must lie in (0, 1], not {self.min_aspect}")

    def __call__(self, noise: Tensor, grid: tuple[int, int], progress: float = 0.0, affinity: Tensor | None = None) -> Mask:
        """See `MaskingStrategy`; progress and affinity are not used."""
        count = masked_count(noise, grid, self.ratio)
        return Mask.highest(self.blocks(noise, grid, count).flatten(1) + noise, count)

    def blocks(self, noise: Tensor, grid: tuple[int, int], count: int) -> Tensor:
        """BEiT's own result, before the count is made up: (B, H, W) bool, at most `count` hidden in each image."""
        rows, columns = grid
        row_H, column_W = torch.arange(rows, device=noise.device), torch.arange(columns, device=noise.device)
        uniform = uniform_stream(noise, _ROUNDS * _TRIES * 4).view(-1, _ROUNDS, _TRIES, 4)
        log_aspect = math.log(self.min_aspect)

        hidden_BHW = torch.zeros(len(noise), rows, columns, dtype=torch.bool, device=noise.device)
        searching_B = torch.ones(len(noise), dtype=torch.bool, device=noise.device)
        for step in range(_ROUNDS):
            area_u, aspect_u, top_u, left_u = uniform[:, step].unbind(-1)
            remaining_B1 = count - hidden_BHW.sum(dim=(1, 2)).unsqueeze(1)
            area_BT = self.min_block + (remaining_B1 - self.min_block) * area_u
            aspect_BT = (log_aspect - 2 * log_aspect * aspect_u).exp()
            height_BT, width_BT = (area_BT * aspect_BT).sqrt().round(), (area_BT / aspect_BT).sqrt().round()
            top_BT = (top_u * (rows - height_BT + 1)).floor()
            left_BT = (left_u * (columns - width_BT + 1)).floor()

            in_rows_BTH = _within(row_H, top_BT, height_BT)
            in_columns_BTW = _within(column_W, left_BT, width_BT)
            block_BTHW = in_rows_BTH.unsqueeze(-1) & in_columns_BTW.unsqueeze(-2)
            newly_BT = (block_BTHW & ~hidden_BHW.unsqueeze(1)).sum(dim=(2, 3))
            fits_BT = (height_BT < rows) & (width_BT < columns) & (newly_BT >= 1) & (newly_BT <= remaining_B1)
            searching_B = searching_B & fits_BT.any(dim=1)
            first_fit_B = fits_BT.to(torch.uint8).argmax(dim=1)
            chosen_BHW = block_BTHW[torch.arange(len(noise), device=noise.device), first_fit_B]
            hidden_BHW = hidden_BHW | (chosen_BHW & searching_B.view(-1, 1, 1))
        return hidden_BHW


_TRIES = 10
# Rectangles until the target is reached: enough for all but one image in thousands, and the count is made up in any case.
_ROUNDS = 24


def _within(place: Tensor, start_BT: Tensor, length_BT: Tensor) -> Tensor:
    """(B, T, places) bool: which places lie in [start, start + length)."""
    offset = place - start_BT.unsqueeze(-1)
    return (offset >= 0) & (offset < length_BT.unsqueeze(-1))
