import itertools
import math

import pytest
import torch

from evomask.analysis.attention_distance import mean_attention_distance


@pytest.mark.parametrize("grid", [(14, 14), (3, 5), (1, 4)])
def test_even_attention_has_the_mean_distance_of_all_pairs(grid):
    places = list(itertools.product(range(grid[0]), range(grid[1])))
    expected = sum(math.dist(a, b) for a in places for b in places) / len(places) ** 2
    count = len(places)
    assert mean_attention_distance(torch.full((count, count), 1 / count), grid).item() == pytest.approx(expected, rel=1e-5)


def test_even_attention_on_the_papers_grid():
    assert mean_attention_distance(torch.ones(196, 196), (14, 14)).item() == pytest.approx(7.3, abs=0.05)


def test_who_looks_at_itself_looks_nowhere():
    assert mean_attention_distance(torch.eye(12), (3, 4)).item() == 0


def test_by_hand_row_by_row():
    # On 1 x 3 patches: the first looks half at itself and half at the last (1), the middle one at the first (1), the last one,
    # with half of its attention on a class token, at the middle (1) and at the first (2).
    attention = torch.tensor([[0.5, 0, 0.5], [1, 0, 0], [0.25, 0.25, 0]])
    assert mean_attention_distance(attention, (1, 3)).item() == pytest.approx((1 + 1 + 1.5) / 3)


def test_blocks_and_heads_stay_apart():
    attention = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    distance = mean_attention_distance(attention, (2, 3))
    assert distance.shape == (2, 3)
    assert distance[1, 2].item() == pytest.approx(mean_attention_distance(attention[1, 2], (2, 3)).item(), rel=1e-6)
