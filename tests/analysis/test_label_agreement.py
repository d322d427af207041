"""Agreement of trees with labels: worked by hand, against naive definitions, and against scikit-learn."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomask.analysis.label_agreement import (
    covering,
    dendrogram_purity,
    label_agreement,
    label_counts,
    patch_labels,
    rand_by_level,
)
from evomask.data.image_masks import IGNORED
from evomask.masking import Hierarchy, build_hierarchy


def tree_of(*distinct: float) -> Hierarchy:
    """Four patches on a line, whose neighbours are so similar: ((0 1) (2 3)) for 3, 1, 2."""
    affinity = torch.zeros(1, 4, 4)
    for patch, similarity in enumerate(distinct):
        affinity[0, patch, patch + 1] = affinity[0, patch + 1, patch] = similarity
    return build_hierarchy(affinity)


def random_case(seed: int, images: int = 3, patches: int = 12, classes: int = 3) -> tuple[Hierarchy, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    affinity = torch.rand(images, patches, patches, generator=generator)
    labels = torch.randint(IGNORED, classes, (images, patches), generator=generator)
    labels[:, :4] = torch.tensor([0, 0, 1, 1])  # two labels, each of them twice
    return build_hierarchy(affinity), labels


def leaves(tree: Hierarchy, image: int, node: int) -> set[int]:
    if node < tree.patches:
        return {node}
    first, second = tree.children[image, node - tree.patches].tolist()
    return leaves(tree, image, first) | leaves(tree, image, second)


def test_a_perfect_tree_agrees_perfectly() -> None:
    found = label_agreement(tree_of(3, 1, 2), torch.tensor([[5, 5, 2, 2]]))
    assert (found.purity, found.covering, found.best_rand, found.images) == (1, 1, 1, 1)


def test_by_hand() -> None:
    # The tree ((0 1) (2 3)) with labels a, b, a, a. Pairs of a: (2, 3) meet in a pure node; (0, 2) and (0, 3) meet at the root,
    # three quarters of which are a. Best nodes: for a (2 3) or the root with 2 of 3 or 3 of 4; for b the patch itself.
    tree, labels = tree_of(3, 1, 2), torch.tensor([[0, 1, 0, 0]])
    count = label_counts(tree, labels)
    assert dendrogram_purity(tree, count).item() == pytest.approx((1 + 0.75 + 0.75) / 3)
    assert covering(count).item() == pytest.approx(0.75 * 3 / 4 + 0.25 * 1)


def test_no_label_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="none of these images shows two labels"):
        label_agreement(tree_of(3, 1, 2), torch.full((1, 4), IGNORED))


def test_patches_without_a_label_are_as_if_they_were_not_there() -> None:
    found = label_agreement(tree_of(3, 1, 2), torch.tensor([[0, IGNORED, 1, 1]]))
    assert (found.purity, found.covering, found.best_rand) == (1, 1, 1)


def test_images_that_show_one_label_do_not_count() -> None:
    one = tree_of(3, 1, 2)
    two = Hierarchy(*(getattr(one, name).repeat(2, *[1] * (getattr(one, name).ndim - 1)) for name in one.__dataclass_fields__))
    found = label_agreement(two, torch.tensor([[0, 0, 0, IGNORED], [0, 1, 0, 0]]))
    assert found.images == 1 and found.purity == pytest.approx(2.5 / 3)
    with pytest.raises(ValueError, match="shows two labels"):
        label_agreement(one, torch.tensor([[4, 4, 4, 4]]))


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_equal_to_the_definitions(seed: int) -> None:
    tree, labels = random_case(seed)
    count = label_counts(tree, labels)
    purity, covered = dendrogram_purity(tree, count), covering(count)
    for image, label in enumerate(labels.tolist()):
        nodes = [leaves(tree, image, node) for node in range(tree.parent.shape[1])]
        known = {patch for patch in range(tree.patches) if label[patch] != IGNORED}
        shares = []
        for a, b in itertools.combinations(sorted(known), 2):
            if label[a] == label[b]:
                met = min((node for node in nodes if {a, b} <= node), key=len) & known
                shares.append(sum(label[patch] == label[a] for patch in met) / len(met))
        assert purity[image].item() == pytest.approx(sum(shares) / len(shares))
        best = 0.0
        for wanted in set(label) - {IGNORED}:
            region = {patch for patch in known if label[patch] == wanted}
            best += len(region) / len(known) * max(len(region & node) / len(region | (node & known)) for node in nodes)
        assert covered[image].item() == pytest.approx(best)


def test_every_cuts_rand_index_is_scikit_learns() -> None:
    adjusted_rand_score = pytest.importorskip("sklearn.metrics").adjusted_rand_score
    tree, labels = random_case(1, images=5, patches=30, classes=4)
    rand = rand_by_level(tree, label_counts(tree, labels))
    for image, height in enumerate(tree.height.tolist()):
        known = labels[image] != IGNORED
        for level in range(1, height + 1):
            expected = adjusted_rand_score(labels[image][known], tree.cut(level)[image][known])
            assert rand[image, level - 1].item() == pytest.approx(expected, abs=1e-12)


def test_a_patch_has_the_label_of_most_of_its_pixels() -> None:
    masks = torch.tensor([[[1, 1, 2, 2, 0, 0], [1, 3, 2, 3, IGNORED, IGNORED]]])
    assert patch_labels(masks, (1, 3)).tolist() == [[1, 2, IGNORED]]
    upright = torch.arange(6).view(1, 3, 2).repeat_interleave(2, dim=1).repeat_interleave(4, dim=2)
    assert patch_labels(upright, (3, 2)).tolist() == [[0, 1, 2, 3, 4, 5]]
