import math
import random

import numpy as np
import pytest
import torch
from scipy import stats

from evomask.masking import BlockMasking, CellMasking, GridMasking, RandomMasking, static

BEIT = BlockMasking(ratio=75.5 / 196)


def _noise(images: int, patches: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(images, patches, generator=torch.Generator().manual_seed(seed))


def _places(masked: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(B, 4, cells) bool of a mask on an even grid: the four places of each 2 x 2 cell."""
    cells = masked.view(len(masked), grid[0] // 2, 2, grid[1] // 2, 2)
    return cells.permute(0, 2, 4, 1, 3).reshape(len(masked), 4, -1)


# RandomMasking: MAE


def test_random_keeps_the_49_patches_of_least_noise():
    noise = _noise(64, 196)
    mask = RandomMasking()(noise, (14, 14))
    assert mask.count == 147
    assert mask.keep_indices.shape == (64, 49)
    assert torch.equal(mask.keep_indices, noise.argsort(dim=1)[:, :49].sort(dim=1).values)


@pytest.mark.parametrize("ratio", [0.5, 0.75])
def test_random_equals_transformers_mae(ratio):
    vit_mae = pytest.importorskip("transformers.models.vit_mae.modeling_vit_mae")
    config = vit_mae.ViTMAEConfig(hidden_size=8, num_attention_heads=1, mask_ratio=ratio)
    noise = _noise(64, 196)
    _, theirs, _ = vit_mae.ViTMAEEmbeddings(config).random_masking(torch.zeros(64, 196, 8), noise=noise)
    assert torch.equal(RandomMasking(ratio)(noise, (14, 14)).masked, theirs.bool())


# GridMasking


def test_grid_keeps_one_place_of_each_cell_drawn_evenly_over_images():
    mask = GridMasking()(_noise(4000, 196), (14, 14))
    assert (mask.masked.sum(dim=1) == 147).all()
    assert mask.keep_indices.shape == (4000, 49)
    visible_B4C = ~_places(mask.masked, (14, 14))
    assert (visible_B4C.all(dim=2).sum(dim=1) == 1).all()
    assert (visible_B4C.any(dim=2).sum(dim=1) == 1).all()
    assert stats.chisquare(visible_B4C.all(dim=2).sum(dim=0).numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("grid", "ratio"), [((4, 6), 0.5), ((2, 10), 0.25), ((6, 4), 0.75)])
def test_grid_hides_whole_places_where_the_ratio_admits_it(grid, ratio):
    masked = GridMasking(ratio)(_noise(200, grid[0] * grid[1]), grid).masked
    hidden_B4C = _places(masked, grid)
    assert torch.equal(hidden_B4C.all(dim=2), hidden_B4C.any(dim=2))
    assert (hidden_B4C.all(dim=2).sum(dim=1) == 4 * ratio).all()


@pytest.mark.parametrize("grid", [(7, 7), (3, 8), (1, 9), (14, 14)])
@pytest.mark.parametrize("ratio", [0.3, 0.6, 0.75])
def test_grid_has_the_exact_count_with_one_place_in_part(grid, ratio):
    rows, columns = grid
    masked = GridMasking(ratio)(_noise(100, rows * columns), grid).masked
    assert (masked.sum(dim=1) == int(rows * columns * ratio)).all()
    for image in masked.view(-1, rows, columns):
        places = [image[top::2, left::2] for top in (0, 1) for left in (0, 1)]
        assert sum(bool(place.any()) and not bool(place.all()) for place in places) <= 1


def test_grid_draws_the_place_in_part_and_its_patches_evenly():
    masked = GridMasking(0.4)(_noise(6000, 36), (6, 6)).masked  # 14 of 36: a place of 9, and 5 of another
    frequency = masked.double().mean(dim=0)
    assert (frequency - 14 / 36).abs().max() < 4 * (14 / 36 * 22 / 36 / 6000) ** 0.5


# CellMasking: SimMIM


@pytest.mark.parametrize(
    ("grid", "cell", "hidden_cells", "hidden_patches"),
    [((14, 14), 2, 30, 120), ((48, 48), 8, 22, 1408), ((4, 12), 4, 2, 32), ((5, 3), 1, 9, 9)],
)
def test_cells_are_whole_and_as_many_as_in_simmim(grid, cell, hidden_cells, hidden_patches):
    rows, columns = grid
    mask = CellMasking(0.6, cell=cell)(_noise(50, rows * columns), grid)
    cells = mask.masked.view(50, rows // cell, cell, columns // cell, cell)
    assert torch.equal(cells.all(dim=4).all(dim=2), cells.any(dim=4).any(dim=2))
    assert (cells.all(dim=4).all(dim=2).sum(dim=(1, 2)) == hidden_cells).all()
    assert mask.count == hidden_patches
    assert (mask.masked.sum(dim=1) == hidden_patches).all()


def test_every_cell_is_hidden_equally_often():
    masked = CellMasking()(_noise(4000, 196), (14, 14)).masked
    frequency = masked.view(-1, 14, 14)[:, ::2, ::2].double().mean(dim=0)
    assert (frequency - 30 / 49).abs().max() < 4 * (30 / 49 * 19 / 49 / 4000) ** 0.5


def test_cells_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match="cells of 4 x 4 patches do not tile a grid of 14 x 14: choose a cell that divides both"
    ):
        CellMasking(cell=4)(_noise(1, 196), (14, 14))
    with pytest.raises(ValueError, match="do not tile a grid of 4 x 6"):
        CellMasking(cell=4)(_noise(1, 24), (4, 6))
    with pytest.raises(ValueError, match="hides all of 4 cells: lower it or use smaller cells"):
        CellMasking(0.9, cell=2)(_noise(1, 16), (4, 4))
    with pytest.raises(ValueError, match="a cell is at least 1 patch wide, not 0"):
        CellMasking(cell=0)


# BlockMasking: BEiT


def _beit(generator: random.Random, rectangles: int | None = None, side: int = 14, target: int = 75) -> np.ndarray:
    """One image of BEiT's generator as a plain loop; `rectangles`: stop after so many."""
    hidden = np.zeros((side, side), dtype=bool)
    placed = 0
    while hidden.sum() < target and placed != rectangles:
        left_over = target - int(hidden.sum())
        for _ in range(10):
            area = generator.uniform(16, left_over)
            aspect = math.exp(generator.uniform(math.log(0.3), math.log(1 / 0.3)))
            height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if height >= side or width >= side:
                continue
            top, left = generator.randint(0, side - height), generator.randint(0, side - width)
            block = hidden[top : top + height, left : left + width]
            if 0 < height * width - block.sum() <= left_over:
                block[:] = True
                placed += 1
                break
        else:
            break
    return hidden


@pytest.fixture(scope="module")
def beit_blocks():
    noise = _noise(20_000, 196)
    return torch.cat([BEIT.blocks(part, (14, 14), 75) for part in noise.split(1000)])


@pytest.fixture(scope="module")
def plain_blocks():
    generator = random.Random(0)
    return torch.from_numpy(np.stack([_beit(generator) for _ in range(4000)]))


def _assert_equal_means(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """The means over images of each statistic differ by chance alone (5 standard errors)."""
    ours, theirs = ours.double().flatten(1), theirs.double().flatten(1)
    error = (ours.var(dim=0) / len(ours) + theirs.var(dim=0) / len(theirs)).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)).abs() <= 5 * error).all()


def test_blocks_have_the_known_facts_of_beit(beit_blocks):
    count = beit_blocks.sum(dim=(1, 2))
    assert count.max() == 75
    assert (count == 75).double().mean().item() == pytest.approx(0.666, abs=0.01)
    assert count.double().mean().item() == pytest.approx(74.47, abs=0.1)
    assert 55 <= count.min() <= 68


def test_blocks_are_distributed_as_in_a_plain_loop(beit_blocks, plain_blocks):
    _assert_equal_means(beit_blocks, plain_blocks)  # how often each patch is hidden
    for statistic in (
        lambda hidden: torch.stack([hidden.sum(dim=(1, 2)) == count for count in range(70, 76)], dim=1),
        lambda hidden: (hidden[:, 1:] & hidden[:, :-1]).sum(dim=(1, 2)).unsqueeze(1),  # vertical neighbours
        lambda hidden: (hidden[:, :, 1:] & hidden[:, :, :-1]).sum(dim=(1, 2)).unsqueeze(1),
        lambda hidden: hidden.any(dim=2).sum(dim=1, keepdim=True),  # rows touched
        lambda hidden: hidden.any(dim=1).sum(dim=1, keepdim=True),
    ):
        _assert_equal_means(statistic(beit_blocks), statistic(plain_blocks))


def test_the_first_block_is_one_rectangle_of_the_right_area_aspect_and_place(monkeypatch):
    monkeypatch.setattr(static, "_ROUNDS", 1)
    ours = BEIT.blocks(_noise(4000, 196), (14, 14), 75)
    generator = random.Random(1)
    theirs = torch.from_numpy(np.stack([_beit(generator, rectangles=1) for _ in range(4000)]))
    heights, widths = ours.any(dim=2).sum(dim=1), ours.any(dim=1).sum(dim=1)
    assert torch.equal(heights * widths, ours.sum(dim=(1, 2)))
    expected_heights, expected_widths = theirs.any(dim=2).sum(dim=1), theirs.any(dim=1).sum(dim=1)
    assert heights.max() == widths.max() == 13  # a block leaves at least one row and one column free
    areas, expected_areas = heights * widths, expected_heights * expected_widths
    aspects, expected_aspects = heights / widths, expected_heights / expected_widths
    assert stats.kstest(areas.numpy(), expected_areas.numpy()).pvalue > 1e-3
    assert stats.kstest(aspects.numpy(), expected_aspects.numpy()).pvalue > 1e-3
    _assert_equal_means(ours, theirs)


def test_the_search_is_long_enough_for_many_small_blocks(monkeypatch):
    noise, strategy = _noise(500, 196), BlockMasking(0.75, min_block=4)
    blocks = strategy.blocks(noise, (14, 14), 147)
    monkeypatch.setattr(static, "_ROUNDS", 50)
    assert torch.equal(strategy.blocks(noise, (14, 14), 147), blocks)


def test_a_target_of_min_block_starts_with_a_rectangle_of_about_that_area():
    # An area of 16 and an aspect in [0.3, 1 / 0.3] round to 2 x 6 at the least.
    blocks = BlockMasking(min_block=16).blocks(_noise(200, 196), (14, 14), 16)
    for hidden in blocks:
        rows, columns = hidden.any(dim=1).nonzero().flatten(), hidden.any(dim=0).nonzero().flatten()
        largest = max(
            (bottom - top + 1) * (right - left + 1)
            for top in rows.tolist()
            for bottom in range(top, int(rows[-1]) + 1)
            for left in columns.tolist()
            for right in range(left, int(columns[-1]) + 1)
            if hidden[top : bottom + 1, left : right + 1].all()
        )
        assert 12 <= largest <= 16


def test_block_masks_keep_the_blocks_and_make_up_the_count_with_the_patches_of_most_noise():
    noise = _noise(500, 196)
    mask, blocks_BN = BEIT(noise, (14, 14)), BEIT.blocks(noise, (14, 14), 75).flatten(1)
    assert mask.count == 75
    assert (mask.masked.sum(dim=1) == 75).all()
    assert not (blocks_BN & ~mask.masked).any()
    added_BN = mask.masked & ~blocks_BN
    assert added_BN.any()
    least_added = noise.masked_fill(~added_BN, 1).amin(dim=1)
    assert (noise.masked_fill(mask.masked, 0).amax(dim=1) <= least_added).all()


@pytest.mark.parametrize("grid", [(14, 14), (7, 20), (3, 3), (1, 12), (2, 2)])
@pytest.mark.parametrize("strategy", [BlockMasking(), BlockMasking(0.75, min_block=4), BlockMasking(0.5, min_block=1)])
def test_block_masks_have_the_exact_count_on_any_grid(grid, strategy):
    patches = grid[0] * grid[1]
    masked = strategy(_noise(100, patches), grid).masked
    assert (masked.sum(dim=1) == int(patches * strategy.ratio)).all()


def test_block_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="a block has at least 1 patch, not 0"):
        BlockMasking(min_block=0)
    for aspect in (0, 1.5):
        with pytest.raises(ValueError, match=r"the least aspect ratio must lie in \(0, 1\], not"):
            BlockMasking(min_aspect=aspect)
