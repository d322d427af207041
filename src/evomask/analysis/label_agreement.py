"""How well a tree over patches follows what is in the image: purity, covering and the adjusted Rand index of its best cut.

All compare a tree with a label for each patch (the object or part that it shows), and none is told which labels go together.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from evomask.data.image_masks import IGNORED
from evomask.masking import Hierarchy


@dataclass(frozen=True)
class LabelAgreement:
    """Means over images that show at least two labels.

    Attributes:
        purity: dendrogram purity (Heller and Ghahramani, 2005): of two patches with one label, the share of this label under
            the node where they meet; 1 where each label is a subtree.
        covering: of each label's patches, the intersection over union with the node that fits them best, weighted by their
            number (the segmentation covering of Arbelaez et al., 2011, with a node of the tree for a region).
        best_rand: adjusted Rand index of the cut, of all levels, that agrees best.
        images: how many images these are means of.
    """

    purity: float
    covering: float
    best_rand: float
    images: int


def patch_labels(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, H, W) labels of pixels -> (B, N) long, what most of a patch's pixels are; of equally many the lowest number."""
    (rows, columns), (height, width) = grid, masks.shape[-2:]
    patches = masks.unflatten(2, (columns, width // columns)).unflatten(1, (rows, height // rows))
    return patches.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2).mode(dim=-1).values


def label_agreement(hierarchy: Hierarchy, labels: Tensor) -> LabelAgreement:
    """Compare trees with labels.

    Args:
        hierarchy: of B images.
        labels: (B, N) long from 0, IGNORED for patches to leave out.

    Raises:
        ValueError: no image shows two labels.
    """
    count_BMC = label_counts(hierarchy, labels)
    telling = (count_BMC[:, -1] > 0).sum(dim=1) > 1
    if not telling.any():
        raise ValueError("none of these images shows two labels: there is nothing that a tree could tell apart")
    return LabelAgreement(
        purity=dendrogram_purity(hierarchy, count_BMC)[telling].mean().item(),
        covering=covering(count_BMC)[telling].mean().item(),
        best_rand=rand_by_level(hierarchy, count_BMC).amax(dim=1)[telling].mean().item(),
        images=int(telling.sum()),
    )


def label_counts(hierarchy: Hierarchy, labels: Tensor) -> Tensor:
    """(B, N) labels -> (B, M, C) float64, how many patches of each label are under each node."""
    classes = max(1, int(labels.max()) + 1)  # there may be no label at all
    leaf_BNC = one_hot(labels.clamp(min=0), classes) * (labels != IGNORED).unsqueeze(-1)
    count_BMC = torch.zeros(*hierarchy.parent.shape, classes, dtype=torch.float64, device=labels.device)
    count_BMC[:, : hierarchy.patches] = leaf_BNC
    image = torch.arange(len(labels), device=labels.device)
    for merge, (first, second) in enumerate(hierarchy.children.permute(1, 2, 0), start=hierarchy.patches):
        count_BMC[:, merge] = count_BMC[image, first] + count_BMC[image, second]
    return count_BMC


def dendrogram_purity(hierarchy: Hierarchy, count_BMC: Tensor) -> Tensor:
    """(B,) of `label_counts`; NaN for images in which no label is shown twice."""
    first_BKC, second_BKC = (
        count_BMC.gather(1, child.unsqueeze(-1).expand(-1, -1, count_BMC.shape[2])) for child in hierarchy.children.unbind(-1)
    )
    node_BKC = count_BMC[:, hierarchy.patches :]
    meeting_BKC = first_BKC * second_BKC  # pairs of a label that meet at this node
    share_BKC = node_BKC / node_BKC.sum(dim=-1, keepdim=True).clamp(min=1)
    return (meeting_BKC * share_BKC).sum(dim=(1, 2)) / meeting_BKC.sum(dim=(1, 2))


def covering(count_BMC: Tensor) -> Tensor:
    """(B,) of `label_counts`."""
    total_B1C = count_BMC[:, -1:]
    union_BMC = count_BMC.sum(dim=-1, keepdim=True) + total_B1C - count_BMC
    best_BC = (count_BMC / union_BMC.clamp(min=1)).amax(dim=1)
    share_BC = (total_B1C / total_B1C.sum(dim=-1, keepdim=True)).squeeze(1)
    return (best_BC * share_BC).sum(dim=-1)


def rand_by_level(hierarchy: Hierarchy, count_BMC: Tensor) -> Tensor:
    """(B, l) adjusted Rand index of the cut at each level from 1 to the greatest height, by Hubert and Arabie's formula.

    Args:
        hierarchy: of B images.
        count_BMC: `label_counts`. The counts under the nodes of a cut are its contingency table with the labels.
    """
    together_BM = _pairs(count_BMC).sum(dim=-1)  # of patches under the same node and with the same label
    grouped_BM = _pairs(count_BMC.sum(dim=-1))
    labelled_B1 = _pairs(count_BMC[:, -1]).sum(dim=-1, keepdim=True)
    every_B1 = grouped_BM[:, -1:]

    level_L = torch.arange(1, int(hierarchy.height.max()) + 1, device=count_BMC.device).view(1, -1, 1)
    own_B1M, above_B1M = (level.unsqueeze(1) for level in (hierarchy.level, hierarchy.level.gather(1, hierarchy.parent)))
    is_root_M = torch.arange(hierarchy.parent.shape[1], device=count_BMC.device) == hierarchy.parent.shape[1] - 1
    in_cut_BLM = ((own_B1M <= level_L) & ((above_B1M > level_L) | is_root_M)).double()
    together_BL, grouped_BL = (torch.einsum("blm,bm->bl", in_cut_BLM, pairs) for pairs in (together_BM, grouped_BM))

    by_chance_BL = grouped_BL * labelled_B1 / every_B1
    return (together_BL - by_chance_BL) / ((grouped_BL + labelled_B1) / 2 - by_chance_BL)


def _pairs(count: Tensor) -> Tensor:
    return count * (count - 1) / 2
