import numpy as np
import pytest
import torch

from evomask.figures.attention import attention_of_patches, middle_queries

GRID = (3, 4)


def test_each_map_is_the_row_of_its_query(originals):
    attention = torch.rand(2, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    figure = attention_of_patches(originals, attention, GRID, queries=[(0, 1), (2, 3)])
    axes = np.array(figure.axes).reshape(2 * 2, 2 + 2)
    assert [ax.get_title() for ax in axes[0]] == ["query", "mean of 2", "block 1", "block 2"]
    for line, (image, query) in enumerate([(0, 1), (0, 11), (1, 1), (1, 11)]):
        maps = [ax.images[0].get_array().reshape(-1) for ax in axes[line, 1:]]
        assert np.allclose(maps[0], attention[image, :, query].mean(dim=0))
        assert np.allclose(maps[1], attention[image, 0, query])
        assert np.allclose(maps[2], attention[image, 1, query])
        assert axes[line, 2].texts[0].get_text() == f"up to {attention[image, 0, query].max():.1%}"


def test_a_dot_marks_the_query(originals):
    figure = attention_of_patches(originals[:1], torch.rand(1, 1, 12, 12), GRID, queries=[(2, 3)])
    for ax in figure.axes:
        (dot,) = ax.lines
        assert np.asarray(dot.get_xydata()).tolist() == [[3.5, 2.5]]


def test_a_query_outside_the_grid_is_refused(originals):
    with pytest.raises(ValueError, match=r"patch \(3, 0\) lies outside the grid of 3 x 4 patches"):
        attention_of_patches(originals, torch.rand(2, 1, 12, 12), GRID, queries=[(3, 0)])


@pytest.mark.parametrize("grid", [(1, 1), (3, 4), (14, 14)])
def test_the_usual_queries_lie_in_the_grid(grid):
    assert all(0 <= row < grid[0] and 0 <= column < grid[1] for row, column in middle_queries(grid))
