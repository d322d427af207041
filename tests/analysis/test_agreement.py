"""Agreement of trees: what the index is, and that the cuts are those of the masks."""

import pytest
import torch

from evomask.analysis.agreement import mean_adjusted_rand_index
from evomask.masking import build_hierarchy

pytest.importorskip("sklearn")


def test_a_tree_agrees_with_itself_and_not_with_a_random_one() -> None:
    torch.manual_seed(0)
    one, other = (build_hierarchy(torch.rand(16, 64, 64)) for _ in range(2))
    assert mean_adjusted_rand_index(one, one, 0.5) == 1
    assert abs(mean_adjusted_rand_index(one, other, 0.5)) < 0.1


def test_two_cuts_by_hand() -> None:
    # Cut at height 3 * 0.5 -> level 2: {0, 1} {2, 3} against {0, 2} {1, 3}. No pair is together in both, of 6 pairs 2 are in
    # each, chance is 2 * 2 / 6: (0 - 2/3) / (2 - 2/3) = -1/2.
    one, other = torch.full((1, 4, 4), 0.1), torch.full((1, 4, 4), 0.1)
    one[0, 0, 1] = one[0, 1, 0] = other[0, 0, 2] = other[0, 2, 0] = 0.9
    one[0, 2, 3] = one[0, 3, 2] = other[0, 1, 3] = other[0, 3, 1] = 0.8
    assert mean_adjusted_rand_index(build_hierarchy(one), build_hierarchy(other), 0.5) == pytest.approx(-0.5)
