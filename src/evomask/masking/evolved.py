"""Depth schedule, and tree + depth -> mask: the paper's Evolved Mask Generation (Eq. 14-17)."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from evomask.masking.affinity import AFFINITIES
from evomask.masking.hierarchy import Hierarchy, Linkage, build_hierarchy
from evomask.masking.mask import Mask, check_ratio, masked_count
from evomask.masking.noise import uniform_stream

Truncation = Literal["subtree", "scattered"]


def masking_depth(height: Tensor, progress: float) -> Tensor:
    """The level at which a tree is cut, h = 1 + floor(l * t / T) (Eq. 14): 1 at the start, up to l in the last epoch.

    Args:
        height: (B,) long, the trees' heights l.
        progress: t / T in [0, 1).

    Returns:
        (B,) long.
    """
    if not 0 <= progress < 1:
        raise ValueError(f"progress is epoch / epochs, from 0 up to but not including 1, not {progress}")
    # t / T is rounded: without the margin, 100 * (29 / 100) would be floored to 28.
    return 1 + (height.double() * progress + 1e-9).floor().long()


@dataclass(frozen=True)
class EvolvedMasking:
    """Hide whole groups of the tree that the model's own attention makes of each image: small ones at first, larger later.

    Attributes:
        ratio: share of patches to hide; `int(N * ratio)` in each image.
        linkage: similarity between merged nodes, see `build_hierarchy`.
        affinity: how attention becomes similarity: "attention" (the paper), "popularity", "profile", "mutual" or "either", see
            `affinity.py`.
        depth: None lets the depth evolve with progress. A number in [0, 1) holds it at that share of the height: 0.2 is the
            paper's "only shallow", 0.8 its "only deep" (Table IV).
        truncation: what is taken of the last group where all of it would be too much; the paper has "the first" of its patches.
            "subtree": what stands together in the tree too. "scattered": any.
    """

    ratio: float = 0.75
    linkage: Linkage = "weighted"
    affinity: str = "attention"
    depth: float | None = None
    truncation: Truncation = "subtree"

    needs_affinity: ClassVar[bool] = True

    def __post_init__(self):
        check_ratio(self.ratio)
        if self.affinity not in AFFINITIES:
            raise ValueError(f"affinity must be one of {', '.join(AFFINITIES)}, not {self.affinity!r}")
        if self.linkage not in get_args(Linkage):
            raise ValueError(f"linkage must be one of {', '.join(get_args(Linkage))}, not {self.linkage!r}")
        if self.truncation not in get_args(Truncation):
            raise ValueError(f"truncation must be one of {', '.join(get_args(Truncation))}, not {self.truncation!r}")
        if self.depth is not None and not 0 <= self.depth < 1:
            raise ValueError(f"depth is a share of the height, from 0 up to but not including 1, not {self.depth}")

    def __call__(self, noise: Tensor, grid: tuple[int, int], progress: float = 0.0, affinity: Tensor | None = None) -> Mask:
        """Mask a batch.

        Args:
            noise: (B, N) float, uniform in [0, 1).
            grid: rows and columns of patches, H x W = N.
            progress: the share of training that is over, t / T in [0, 1).
            affinity: (B, N, N) float, the mean attention between patches (row: query, column: key). With B / k of them every
                tree serves k masks, those of k rows of noise that follow each other.

        Raises:
            ValueError: affinity is missing or does not fit the grid.
            NonFiniteAffinity: what the tree is made of holds NaN or infinity, see `build_hierarchy`.
        """
        count = masked_count(noise, grid, self.ratio)
        images, patches = noise.shape
        if affinity is None or affinity.shape[1:] != (patches, patches) or not len(affinity) or images % len(affinity):
            given = "none" if affinity is None else f"one of {tuple(affinity.shape)}"
            expected = (images, patches, patches)
            raise ValueError(f"evolved masks need the attention between patches, an affinity of {expected}, but got {given}")
        hierarchy = build_hierarchy(AFFINITIES[self.affinity](affinity.detach()), self.linkage)
        return self.cut(hierarchy.repeat_interleave(images // len(affinity)), noise, count, progress)

    def cut(self, hierarchy: Hierarchy, noise: Tensor, count: int, progress: float = 0.0) -> Mask:
        """Cut masks from trees that are there already; `linkage` and `affinity` are not used.

        Args:
            hierarchy: of B images.
            noise: (B, N) float, uniform in [0, 1).
            count: patches to hide in each image.
            progress: the share of training that is over, t / T in [0, 1).
        """
        depth_B = masking_depth(hierarchy.height, progress if self.depth is None else self.depth)
        score_BN = _group_by_group(hierarchy, depth_B, noise, self.truncation)
        return Mask.highest(score_BN, count, hierarchy=hierarchy, depth=depth_B)


def _group_by_group(hierarchy: Hierarchy, depth_B: Tensor, noise_BN: Tensor, truncation: Truncation) -> Tensor:
    """(B, N) long, each patch's turn: groups in random order, inside a group that of a dendrogram with random sides, or any.

    Whatever the number of patches taken from one end, all groups but one are taken whole (Eq. 15), and in a dendrogram's order
    what is taken of that one stands together in the tree too.
    """
    group_BN = hierarchy.cut(depth_B)
    if truncation == "subtree":
        leaf_order_BN = hierarchy.leaf_order(uniform_stream(noise_BN, hierarchy.patches - 1) < 0.5)
    else:
        shuffled_BN = uniform_stream(noise_BN, hierarchy.patches).argsort(dim=1)
        # Group by group here, too, so that of two that draw equal noise one is taken whole.
        leaf_order_BN = shuffled_BN.gather(1, group_BN.gather(1, shuffled_BN).argsort(dim=1, stable=True))
    # A group is drawn by the noise of one of its patches, the first. The least noise of all would favour large groups.
    patch_BN = torch.arange(hierarchy.patches, device=noise_BN.device).expand_as(group_BN)
    first_patch_BM = torch.full_like(hierarchy.parent, hierarchy.patches).scatter_reduce(1, group_BN, patch_BN, "amin")
    draw_BN = noise_BN.gather(1, first_patch_BM.gather(1, group_BN))

    by_draw_BN = draw_BN.gather(1, leaf_order_BN).argsort(dim=1, stable=True)
    return leaf_order_BN.gather(1, by_draw_BN).argsort(dim=1)
