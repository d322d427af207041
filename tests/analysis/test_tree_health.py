import math

import pytest
import torch

from evomask.analysis.snapshot import Snapshot
from evomask.analysis.tree_health import health_by_stage, tree_health
from evomask.masking import Hierarchy, build_hierarchy


def chain(patches: int) -> Hierarchy:
    """Patch 0 is most like patch 1, both are next most like patch 2, and so on: every merge adds one patch."""
    similarity = -torch.maximum(torch.arange(patches)[:, None], torch.arange(patches)).double()
    return build_hierarchy(similarity[None])


def balanced() -> Hierarchy:
    """Eight patches: those whose numbers agree in more leading bits are the more alike."""
    number = torch.arange(8)
    differing = number[:, None] ^ number
    return build_hierarchy(-differing.double().clamp(min=1).log2().floor()[None])


def test_a_balanced_tree_has_balance_one():
    health = tree_health(balanced())
    assert (health.height, health.balance) == (4, pytest.approx(1))
    # l = 4: cut at level 1 + floor(4 f), that is 2, 3 and 4
    assert health.groups == {0.25: 4, 0.5: 2, 0.75: 1}
    assert health.largest_group == {0.25: 0.25, 0.5: 0.5, 0.75: 1}


def test_a_chain_by_hand():
    health = tree_health(chain(8), fractions=(0.0, 0.5))
    assert health.height == 8
    # merges above the patches: 7 for the first two, then 6, 5, ... 1 for the last
    assert health.balance == pytest.approx((7 + 7 + 6 + 5 + 4 + 3 + 2 + 1) / 8 / math.log2(8))
    # cut at level 1: single patches; at level 5: five patches in one group, three alone
    assert health.groups == {0.0: 8, 0.5: 4}
    assert health.largest_group == {0.0: 1 / 8, 0.5: 5 / 8}


def test_numbers_are_means_over_images():
    both = Hierarchy.cat([balanced(), chain(8)])
    assert tree_health(both).height == 6
    assert tree_health(both).balance == pytest.approx((tree_health(balanced()).balance + tree_health(chain(8)).balance) / 2)


def test_group_sizes_add_up():
    tree = build_hierarchy(torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(0)))
    for level in range(1, int(tree.height.max()) + 1):
        assert tree.group_sizes(level).sum(dim=1).tolist() == [20, 20, 20]


def test_a_row_a_stage():
    stages = [
        Snapshot(masked=torch.zeros(1, 8, dtype=torch.bool), hierarchy=tree, depth=None, reconstruction=None,
                 grid=(2, 4), epoch=step, step=step, progress=0.0)
        for step, tree in ((0, chain(8)), (7, balanced()))
    ]  # fmt: skip
    first, last = health_by_stage(stages)
    assert (first["step"], first["tree_height"], last["step"], last["tree_height"]) == (0, 8, 7, 4)
    assert (last["largest_group_25"], last["largest_group_50"], last["largest_group_75"]) == (0.25, 0.5, 1)
    assert first["balance"] > last["balance"] == pytest.approx(1)
