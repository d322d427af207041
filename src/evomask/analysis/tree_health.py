"""Are the trees balanced, or do they chain? Their height, their balance, and how much of an image one group holds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evomask.analysis.snapshot import Snapshot
from evomask.masking import Hierarchy, masking_depth


@dataclass(frozen=True)
class TreeHealth:
    """Means over images.

    Attributes:
        height: levels of the tree, at best 1 + log2(N), at worst N.
        balance: merges between a patch and the root, mean over patches, over log2(N): 1 for a balanced tree of 2^k patches,
            about N / (2 log2 N) for a chain. (Sackin's index, in units of its least value.)
        groups: by share of the height, how many groups the cut there has.
        largest_group: by share of the height, the share of the image's patches that the largest group of the cut holds.
    """

    height: float
    balance: float
    groups: dict[float, float]
    largest_group: dict[float, float]


def tree_health(hierarchy: Hierarchy, fractions: Sequence[float] = (0.25, 0.5, 0.75)) -> TreeHealth:
    """Look at the trees of some images.

    Args:
        hierarchy: of B images.
        fractions: shares of the heights, in [0, 1), at which the trees are cut.
    """
    groups, largest_group = {}, {}
    for fraction in fractions:
        size_BM = hierarchy.group_sizes(masking_depth(hierarchy.height, fraction))
        groups[fraction] = size_BM.gt(0).sum(dim=1).double().mean().item()
        largest_group[fraction] = size_BM.amax(dim=1).double().mean().item() / hierarchy.patches
    # A patch counts once in the size of each merge above it.
    merges_B = hierarchy.size[:, hierarchy.patches :].double().sum(dim=1) / hierarchy.patches
    balance = merges_B.mean().item() / math.log2(hierarchy.patches)
    return TreeHealth(hierarchy.height.double().mean().item(), balance, groups, largest_group)


def health_by_stage(snapshots: Sequence[Snapshot]) -> list[dict[str, float]]:
    """A row a snapshot: `step`, `tree_height`, `balance` and `largest_group_25`, `..._50`, `..._75` (percent of the height)."""
    rows = []
    for stage in snapshots:
        health = tree_health(stage.hierarchy)
        row = {"step": stage.step, "tree_height": health.height, "balance": health.balance}
        rows.append(row | {f"largest_group_{fraction:.0%}"[:-1]: share for fraction, share in health.largest_group.items()})
    return rows
