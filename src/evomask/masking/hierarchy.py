"""Patch affinity -> binary tree, its cut and its leaf order: the paper's Adaptive Hierarchy Establishment (Eq. 5, 7-13).

Nodes of an image with N patches are numbered as scipy numbers them: 0 .. N - 1 are the patches (leaves), N + k is the k-th
merge, in order of falling similarity, and 2N - 2 is the root. M = 2N - 1 is the number of nodes.
"""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from evomask.masking.affinity import symmetric_attention

Linkage = Literal["weighted", "average"]
Backend = Literal["auto", "torch", "numba", "triton"]
_INSTALL = {"numba": "pip install numba", "triton": "install torch with CUDA"}


class NonFiniteAffinity(ValueError):
    """The affinity holds NaN or infinity, so no pair of patches is the most similar one."""

    def __init__(self):
        super().__init__(
            "the affinity holds NaN or infinity, the model has diverged: lower the learning rate or compute in float32"
        )


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """One binary tree over the patches of each image.

    Attributes:
        parent: (B, M) long, the node above each node; the root is its own parent.
        level: (B, M) long, 1 for patches, max of the children's levels + 1 for the rest (Eq. 10).
        size: (B, M) long, the number of patches under each node, 1 for a patch.
        children: (B, N - 1, 2) long, the two nodes that each merge joins, the one with the lower number first.
        similarity: (B, N - 1) float, of the two children when they were merged; it never rises from one merge to the next.
            NaN where the affinity was not finite, see `build_hierarchy`.
    """

    parent: Tensor
    level: Tensor
    size: Tensor
    children: Tensor
    similarity: Tensor

    @property
    def patches(self) -> int:
        """N, the number of leaves."""
        return self.children.shape[1] + 1

    @property
    def height(self) -> Tensor:
        """(B,) long, the root's level l."""
        return self.level[:, -1]

    def cut(self, level: int | Tensor) -> Tensor:
        """The partition at a depth: each patch's highest ancestor whose level is at most `level`.

        Every patch is covered, also where the tree is unbalanced. At level 1 each patch is its own group; from the height
        on there is one group.

        Args:
            level: a number, or (B,) long for a depth an image.

        Returns:
            (B, N) long, the number of the node that each patch belongs to.
        """
        # A number stays one: as a tensor it would have to be copied to the device.
        depth = level.to(self.level.device).reshape(-1, 1) if isinstance(level, Tensor) else level
        node_BM = torch.arange(self.level.shape[1], device=self.level.device).expand_as(self.level)
        may_climb_BM = self.level.gather(1, self.parent) <= depth
        ancestor_BM = torch.where(may_climb_BM, self.parent, node_BM)
        for _ in range(self._doublings):
            ancestor_BM = ancestor_BM.gather(1, ancestor_BM)
        return ancestor_BM[:, : self.patches]

    def group_sizes(self, level: int | Tensor) -> Tensor:
        """(B, M) long, how many patches each node has as a group of the cut at a level; 0 for nodes that are none."""
        group_BN = self.cut(level)
        return torch.zeros_like(self.parent).scatter_add(1, group_BN, torch.ones_like(group_BN))

    def leaf_order(self, swap: Tensor | None = None) -> Tensor:
        """The patches from left to right as a dendrogram draws them: the leaves of any node stand together.

        Args:
            swap: (B, N - 1) bool, True where a merge's second child goes first. None swaps no pair.

        Returns:
            (B, N) long, a permutation of the patches in each image.
        """
        return self.leaf_position(swap).argsort(dim=1)

    def leaf_position(self, swap: Tensor | None = None) -> Tensor:
        """The inverse of `leaf_order`: (B, N) long, at which place from the left each patch stands."""
        first, second = self.children.unbind(-1)
        if swap is not None:
            first, second = torch.where(swap, second, first), torch.where(swap, first, second)
        # A second child stands behind all leaves of the first; a leaf's place is the sum of such shifts on its way up.
        shift_BM = torch.zeros_like(self.parent).scatter(1, second, self.size.gather(1, first))
        ancestor_BM = self.parent
        for _ in range(self._doublings):
            shift_BM = shift_BM + shift_BM.gather(1, ancestor_BM)
            ancestor_BM = ancestor_BM.gather(1, ancestor_BM)
        return shift_BM[:, : self.patches]

    @classmethod
    def cat(cls, parts: "Sequence[Hierarchy]") -> "Hierarchy":
        """The trees of several batches of images with as many patches, one after the other."""
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def repeat_interleave(self, times: int) -> "Hierarchy":
        """Every image's tree so many times, one after the other."""
        if times == 1:
            return self
        return Hierarchy(*(getattr(self, field.name).repeat_interleave(times, dim=0) for field in fields(self)))

    def linkage(self, image: int) -> np.ndarray:
        """Image `image` as a scipy linkage matrix, for `dendrogram()`, `fcluster()` and the like.

        Returns:
            (N - 1, 4) float64: both children, their distance, patches under the merge. Distance is the highest similarity
            of the image less the similarity of the pair, so that it starts at 0 and rises, as scipy wants it.
        """
        similarity = self.similarity[image].double().cpu()
        distance = similarity.max() - similarity
        size = self.size[image, self.patches :].cpu()
        return torch.column_stack((self.children[image].cpu(), distance, size)).double().numpy()

    @property
    def _doublings(self) -> int:
        # Following the ancestors of ancestors covers a path of 2^k steps in k rounds, and no path is longer than N - 1.
        return max(1, (self.patches - 1).bit_length())


def build_hierarchy(affinity: Tensor, linkage: Linkage = "weighted", backend: Backend = "auto") -> Hierarchy:
    """Merge the most similar pair of nodes until one is left (Eq. 9), for all images at once.

    It follows nearest-neighbour chains: from any node go on to its most similar node until two nodes are each other's
    nearest, and merge those. As both linkages are reducible (a merge is never more similar to a third node than the closer of
    its parts was), such a pair stays nearest whatever else is merged first, and the greedy loop of Eq. 9 merges it too: the
    tree is the same, in O(N^2) steps an image instead of O(N^3) whatever its shape. Exact ties leave Eq. 9 ambiguous; the
    result is then one of the greedy trees, always the same one.

    Args:
        affinity: (B, N, N) float. A pair is unordered: [i, j] and [j, i] are averaged; the diagonal is not used. Means are
            taken in its own precision, float32 at least: where two pairs are as close as rounding, it decides. Given float64,
            the trees are those of scipy.
        linkage: similarity to a merged node. "weighted": the mean over its two children, Eq. 7 read literally (WPGMA).
            "average": the mean over its patches, the reading of the paper's prose (UPGMA).
        backend: what builds the trees; they are the same. "torch": the reference, below, on any device. "numba": compiled
            for a CPU. "triton": compiled for a GPU, up to 1,024 patches. "auto": what is compiled for the affinity's device,
            where it is installed, else "torch".

    Raises:
        NonFiniteAffinity: the affinity holds NaN or infinity, and is on a CPU. Another device is not asked, since the host
            would have to wait for it: there such an image gets a tree without meaning, whose `similarity` is NaN. In training
            the loss is not finite then either, as it comes from the same weights, and the step is left out.
        ValueError: another shape or linkage, or a backend that cannot take this affinity.
    """
    if affinity.ndim != 3 or affinity.shape[1] != affinity.shape[2] or affinity.shape[1] < 2:
        raise ValueError(f"affinity must be (images, N, N) with at least 2 patches, not {tuple(affinity.shape)}")
    if linkage not in get_args(Linkage):
        raise ValueError(f"linkage must be one of {', '.join(get_args(Linkage))}, not {linkage!r}")
    if backend not in get_args(Backend):
        raise ValueError(f"backend must be one of {', '.join(get_args(Backend))}, not {backend!r}")
    if backend == "auto":
        backend = _fastest_backend(affinity)
    elif obstacle := _obstacle(backend, affinity):
        raise ValueError(f"backend {backend!r} {obstacle}, or leave it at 'auto'")

    affinity = affinity.detach().to(torch.promote_types(affinity.dtype, torch.float32))
    if backend == "numba":
        from evomask.masking.kernels.cpu import build_trees  # not before it is needed: numba takes a second to import

        trees = build_trees(affinity, linkage)
        if trees is None:
            raise NonFiniteAffinity
        return Hierarchy(*trees)
    if backend == "triton":
        from evomask.masking.kernels.triton import build_trees

        return Hierarchy(*build_trees(affinity, linkage))
    similarity_BNN = symmetric_attention(affinity)
    finite_B11 = similarity_BNN.isfinite().all(dim=2, keepdim=True).all(dim=1, keepdim=True)
    if affinity.device.type == "cpu" and not finite_B11.all():
        raise NonFiniteAffinity
    hierarchy = number_by_similarity(*follow_chains(similarity_BNN.where(finite_B11, 0.0), linkage))
    return replace(hierarchy, similarity=hierarchy.similarity.where(finite_B11.squeeze(2), torch.nan))


def _fastest_backend(affinity_BNN: Tensor) -> Backend:
    compiled: dict[str, Backend] = {"cpu": "numba", "cuda": "triton"}
    backend = compiled.get(affinity_BNN.device.type, "torch")
    obstacle = _obstacle(backend, affinity_BNN)
    if obstacle and _is_installed(backend):
        _say_once(f"trees are built by torch, which takes many times longer: {backend} {obstacle}")
    return "torch" if obstacle else backend


@cache
def _say_once(warning: str) -> None:
    logging.getLogger("evomask").warning(warning)


def _obstacle(backend: Backend, affinity_BNN: Tensor) -> str | None:
    """Why the backend cannot take this affinity, and what helps; None where it can."""
    device, patches = affinity_BNN.device.type, affinity_BNN.shape[1]
    if backend in _INSTALL and not _is_installed(backend):
        return f"is not installed: {_INSTALL[backend]}"
    if backend == "numba":
        if device != "cpu":
            return f"takes an affinity on a CPU, not on {device}: move it"
        return _compiler_obstacle()
    if backend == "triton":
        if device != "cuda" and not (device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"):
            return f"takes an affinity on a GPU, not on {device}: move it"
        from evomask.masking.kernels.triton import LARGEST

        if patches > LARGEST:
            return f"takes up to {LARGEST} patches: use 'torch'"
    return None


@cache
def _is_installed(library: str) -> bool:
    return find_spec(library) is not None


@cache
def _compiler_obstacle() -> str | None:
    """Why numba, which is installed, cannot be used; asked when trees are wanted, since it takes a second to import."""
    try:
        import_module("evomask.masking.kernels.cpu")
    except ImportError as error:  # of a NumPy that it does not know, for example
        return f"cannot be imported ({error}): install another version"
    return None


def follow_chains(similarity_BNN: Tensor, linkage: Linkage) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The merges in the order in which the chains find them: both nodes (B, N - 1, 2), similarity, level and size (B, N - 1).

    A cluster lives in the slot (row and column) of one of its patches. Every node but the root enters the chain once and
    leaves it once, by a merge of two: 2 (N - 1) entries and N - 1 merges for every image, whatever its tree. So all images
    of a batch run in step, and nothing is asked of the device in between. `similarity_BNN` is used up.
    """
    batch, patches, device = similarity_BNN.shape[0], similarity_BNN.shape[1], similarity_BNN.device
    image = torch.arange(batch, device=device)
    similarity_BNN.diagonal(dim1=1, dim2=2).fill_(-torch.inf)

    node_BN = torch.arange(patches, device=device).repeat(batch, 1)  # the node that lives in each slot
    level_BN = torch.ones_like(node_BN)
    size_BN = torch.ones_like(node_BN)
    waiting_BN = torch.ones_like(node_BN, dtype=torch.bool)  # alive and not in the chain
    # Two places before the first node and one behind the last let every step read and write without asking for the length.
    chain_BL = torch.zeros(batch, patches + 3, dtype=torch.long, device=device)
    length_B = torch.zeros_like(image)

    merge_B = torch.zeros_like(image)
    pair_BK2 = torch.zeros(batch, patches, 2, dtype=torch.long, device=device)  # row N - 1: where steps without a merge write
    similarity_BK = similarity_BNN.new_zeros(batch, patches)
    level_BK, size_BK = torch.zeros_like(pair_BK2[..., 0]), torch.zeros_like(pair_BK2[..., 0])

    for _ in range(3 * (patches - 1)):
        before_B, last_B = chain_BL[image, length_B], chain_BL[image, length_B + 1]
        row_BN = similarity_BNN[image, last_B]
        best_B, nearest_B = row_BN.max(dim=1)
        # The node before wins ties: a chain could run in circles of equal similarities otherwise.
        merges_B = (length_B >= 2) & (row_BN[image, before_B] == best_B)

        # Without a merge the nearest node enters the chain; an empty chain starts at the first node that waits.
        enters_B = torch.where(length_B == 0, waiting_BN.to(torch.uint8).argmax(dim=1), nearest_B)
        chain_BL[image, length_B + 2] = enters_B
        waiting_BN[image, enters_B] &= merges_B

        # With a merge the union takes the slot of the node before, and the last one's slot dies.
        merges_B1 = merges_B.unsqueeze(1)
        row_before_BN = similarity_BNN[image, before_B]
        size_before_B = size_BN[image, before_B]
        union_size_B = size_before_B + size_BN[image, last_B]
        if linkage == "average":
            share_B1 = (size_before_B.to(row_BN.dtype) / union_size_B).unsqueeze(1)
            # Rounding must not lift a mean above its larger part: merges are sorted by similarity in the end.
            mean_BN = (share_B1 * row_before_BN + (1 - share_B1) * row_BN).minimum(row_before_BN.maximum(row_BN))
        else:
            mean_BN = (row_before_BN + row_BN) / 2
        union_BN = torch.where(merges_B1, mean_BN, row_before_BN)
        similarity_BNN[image, before_B] = union_BN
        similarity_BNN[image, :, before_B] = union_BN
        similarity_BNN[image, :, last_B] = similarity_BNN[image, :, last_B].masked_fill(merges_B1, -torch.inf)

        level_before_B = level_BN[image, before_B]
        union_level_B = torch.maximum(level_before_B, level_BN[image, last_B]) + 1
        written_B = torch.where(merges_B, merge_B, patches - 1)
        pair_BK2[image, written_B] = torch.stack((node_BN[image, before_B], node_BN[image, last_B]), dim=1)
        similarity_BK[image, written_B] = best_B
        level_BK[image, written_B] = union_level_B
        size_BK[image, written_B] = union_size_B
        level_BN[image, before_B] = torch.where(merges_B, union_level_B, level_before_B)
        size_BN[image, before_B] = torch.where(merges_B, union_size_B, size_before_B)
        node_BN[image, before_B] = torch.where(merges_B, patches + merge_B, node_BN[image, before_B])
        waiting_BN[image, before_B] |= merges_B
        merge_B += merges_B
        length_B += torch.where(merges_B, -2, 1)
    return pair_BK2[:, :-1], similarity_BK[:, :-1], level_BK[:, :-1], size_BK[:, :-1]


def number_by_similarity(pair_BK2: Tensor, similarity_BK: Tensor, level_BK: Tensor, size_BK: Tensor) -> Hierarchy:
    """Number the merges by falling similarity, the order of the greedy loop. Equal ones stay as found: children first."""
    batch, merges = similarity_BK.shape
    patches = merges + 1
    order_BK = similarity_BK.argsort(dim=1, descending=True, stable=True)
    leaf_BN = torch.arange(patches, device=pair_BK2.device).expand(batch, -1)
    new_number_BM = torch.cat((leaf_BN, patches + order_BK.argsort(dim=1)), dim=1)

    children_BK2 = new_number_BM.gather(1, pair_BK2.flatten(1)).view_as(pair_BK2)
    children_BK2 = children_BK2.gather(1, order_BK.unsqueeze(-1).expand_as(children_BK2)).sort(dim=-1).values
    merge_BK = patches + torch.arange(merges, device=pair_BK2.device).expand(batch, -1)
    root_BM = torch.full_like(new_number_BM, 2 * patches - 2)
    return Hierarchy(
        parent=root_BM.scatter(1, children_BK2.flatten(1), merge_BK.repeat_interleave(2, dim=1)),
        level=torch.cat((torch.ones_like(leaf_BN), level_BK.gather(1, order_BK)), dim=1),
        size=torch.cat((torch.ones_like(leaf_BN), size_BK.gather(1, order_BK)), dim=1),
        children=children_BK2,
        similarity=similarity_BK.gather(1, order_BK),
    )
