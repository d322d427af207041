from fractions import Fraction
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evomask.masking import (
    EvolvedMasking,
    Hierarchy,
    Mask,
    NonFiniteAffinity,
    RandomMasking,
    build_hierarchy,
    masking_depth,
)
from evomask.masking.affinity import AFFINITIES
from evomask.masking.evolved import Truncation
from evomask.masking.hierarchy import Linkage


def _noise(images: int, patches: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(images, patches, generator=torch.Generator().manual_seed(seed))


def _attention(images: int, patches: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(images, patches, patches, generator=torch.Generator().manual_seed(seed))
    popularity = torch.linspace(0, 1, patches)[torch.randperm(patches, generator=torch.Generator().manual_seed(seed))]
    return (logits + popularity).softmax(dim=-1)


def _cut_tree(mask: Mask) -> tuple[Hierarchy, torch.Tensor]:
    assert mask.hierarchy is not None
    assert mask.depth is not None
    return mask.hierarchy, mask.depth


def _hidden_under(mask: Mask, image: int) -> list[int]:
    """How many patches under each node are hidden."""
    hidden = mask.masked[image].int().tolist()
    for first, second in _cut_tree(mask)[0].children[image].tolist():
        hidden.append(hidden[first] + hidden[second])
    return hidden


# Depth


@pytest.mark.parametrize(
    ("height", "epoch", "epochs", "depth"),
    [
        (40, 0, 300, 1),
        (40, 7, 300, 1),  # 0.93
        (40, 8, 300, 2),  # 1.07
        (40, 150, 300, 21),
        (40, 299, 300, 40),  # 39.87
        (100, 29, 100, 30),  # exactly 29, though 100 * (29 / 100) is 28.999999999999996
        (100, 57, 100, 58),
        (8, 199, 200, 8),
        (2, 1, 2, 2),
        (2, 49, 100, 1),
    ],
)
def test_depth_by_hand(height, epoch, epochs, depth):
    assert masking_depth(torch.tensor([height]), epoch / epochs).tolist() == [depth]


def test_every_image_has_its_own_depth():
    depth = masking_depth(torch.tensor([9, 14, 80, 2]), 0.5)
    assert depth.dtype == torch.long
    assert depth.tolist() == [5, 8, 41, 2]


@settings(max_examples=300, derandomize=True)
@given(height=st.integers(2, 2304), epochs=st.integers(1, 10**6), data=st.data())
def test_depth_is_eq_14_in_exact_arithmetic(height, epochs, data):
    epoch = data.draw(st.integers(0, epochs - 1))
    depth = masking_depth(torch.tensor([height]), epoch / epochs).item()
    assert depth == 1 + int(Fraction(height * epoch, epochs))
    assert 1 <= depth <= height


@pytest.mark.parametrize("progress", [-0.01, 1, 1.5, float("nan")])
def test_progress_outside_of_training_is_refused(progress):
    with pytest.raises(ValueError, match="progress is epoch / epochs, from 0 up to but not including 1, not"):
        masking_depth(torch.tensor([5]), progress)
    with pytest.raises(ValueError, match="progress is epoch / epochs"):
        EvolvedMasking()(_noise(1, 6), (2, 3), progress, _attention(1, 6))


@pytest.mark.parametrize("depth", [0.2, 0.8])
def test_a_fixed_depth_is_a_share_of_each_height_whatever_the_progress(depth):
    noise, attention = _noise(6, 48), _attention(6, 48)
    masks = [EvolvedMasking(depth=depth)(noise, (6, 8), progress, attention) for progress in (0, 0.5, 0.99)]
    for mask in masks:
        hierarchy, depth_B = _cut_tree(mask)
        assert len(hierarchy.height.unique()) > 1
        assert depth_B.tolist() == [1 + int(depth * height) for height in hierarchy.height.tolist()]
        assert torch.equal(mask.masked, masks[0].masked)


# Mask


@settings(max_examples=120, derandomize=True)
@given(
    rows=st.integers(1, 6),
    columns=st.integers(2, 6),
    ratio=st.floats(0.05, 0.95),
    progress=st.floats(0, 0.999),
    linkage=st.sampled_from(get_args(Linkage)),
    affinity=st.sampled_from(list(AFFINITIES)),
    truncation=st.sampled_from(get_args(Truncation)),
    seed=st.integers(0, 10**6),
)
def test_masks_hide_the_exact_count_in_whole_groups_but_one(
    rows, columns, ratio, progress, linkage, affinity, truncation, seed
):
    patches = rows * columns
    noise, attention = _noise(3, patches, seed), _attention(3, patches, seed)
    masking = EvolvedMasking(ratio=ratio, linkage=linkage, affinity=affinity, truncation=truncation)
    if int(patches * ratio) == 0:
        with pytest.raises(ValueError, match="hides none of"):
            masking(noise, (rows, columns), progress, attention)
        return
    mask = masking(noise, (rows, columns), progress, attention)

    assert mask.count == int(patches * ratio)
    assert mask.masked.dtype == torch.bool
    assert mask.masked.shape == (3, patches)
    assert mask.masked.sum(dim=1).tolist() == [int(patches * ratio)] * 3
    hierarchy, depth = _cut_tree(mask)
    assert torch.equal(depth, masking_depth(hierarchy.height, progress))
    groups = hierarchy.cut(depth)
    for image in range(3):
        size, level = hierarchy.size[image].tolist(), hierarchy.level[image].tolist()
        in_part = [0 < hidden < under for hidden, under in zip(_hidden_under(mask, image), size, strict=True)]
        assert sum(in_part[group] for group in groups[image].unique().tolist()) <= 1
        if truncation == "scattered":
            continue
        # Inside a group too: what is hidden of it is one end of a dendrogram, so of any two sides one is whole.
        for node, (first, second) in enumerate(hierarchy.children[image].tolist(), start=patches):
            assert level[node] > depth[image] or not (in_part[first] and in_part[second])


@pytest.mark.parametrize(
    "masking", [EvolvedMasking(), EvolvedMasking(0.4, linkage="average", affinity="profile", truncation="scattered")]
)
def test_at_the_start_it_is_the_random_mask_of_the_same_noise(masking):
    noise = _noise(50, 96)
    mask = masking(noise, (8, 12), 0.0, _attention(50, 96))
    assert _cut_tree(mask)[1].tolist() == [1] * 50
    assert torch.equal(mask.masked, RandomMasking(masking.ratio)(noise, (8, 12)).masked)


def test_groups_grow_with_progress():
    noise, attention = _noise(8, 100), _attention(8, 100)
    masks = [EvolvedMasking()(noise, (10, 10), progress, attention) for progress in (0, 0.2, 0.5, 0.9)]
    cuts = [hierarchy.cut(depth) for hierarchy, depth in map(_cut_tree, masks)]
    groups = [sum(len(image.unique()) for image in cut) for cut in cuts]
    assert groups[0] == 800 > groups[1] > groups[2] > groups[3]


def _one_large_group() -> torch.Tensor:
    """(16, 16): patches 0 to 7 are a balanced tree of level 4, to which 8 to 15 are added one by one."""
    patch = torch.arange(16)
    apart = (patch[:, None] ^ patch).float().log2().floor().clamp(min=0)  # 0 in a pair, 1 among four, 2 among eight
    last = torch.maximum(patch[:, None], patch)
    return torch.where(last < 8, 1 - apart / 10, 0.6 - last / 50)


def test_large_and_small_groups_are_equally_likely_to_be_drawn():
    images = 9000
    noise, affinity = _noise(images, 16), _one_large_group().expand(images, 16, 16)
    # 4 of 12: the octet and 8 to 15 are nine groups; one patch is hidden, of the group that is drawn first.
    mask = EvolvedMasking(ratio=1 / 16, depth=0.25)(noise, (4, 4), affinity=affinity)
    hierarchy, depth = _cut_tree(mask)
    assert hierarchy.height[0] == 12
    assert depth[0] == 4
    assert len(hierarchy.cut(4)[0].unique()) == 9
    drawn = mask.masked_indices.flatten().bincount(minlength=16)
    assert stats.chisquare([drawn[:8].sum().item(), *drawn[8:].tolist()]).pvalue > 1e-3
    # Sides are random: each patch of the large group is as likely to be taken first.
    assert stats.chisquare(drawn[:8].numpy()).pvalue > 1e-3


def test_scattered_patches_of_the_last_group_are_any_of_its_subsets():
    images = 7000
    affinity = _one_large_group()[:8, :8].expand(images, 8, 8)  # one group at its full height
    mask = EvolvedMasking(ratio=2 / 8, depth=0.99, truncation="scattered")(_noise(images, 8), (2, 4), affinity=affinity)
    hierarchy, depth = _cut_tree(mask)
    assert torch.equal(depth, hierarchy.height)
    _, counts = mask.masked.unique(dim=0, return_counts=True)
    assert len(counts) == 28
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    # As a subtree it is one of the four pairs.
    assert len(EvolvedMasking(ratio=2 / 8, depth=0.99)(_noise(images, 8), (2, 4), affinity=affinity).masked.unique(dim=0)) == 4


def test_of_groups_that_draw_equal_noise_one_is_taken_whole():
    noise = _noise(400, 36).mul(16).floor().div(16)
    mask = EvolvedMasking(truncation="scattered")(noise, (6, 6), 0.4, _attention(400, 36))
    hierarchy, depth = _cut_tree(mask)
    for image, group_N in enumerate(hierarchy.cut(depth)):
        hidden, size = group_N[mask.masked[image]].bincount(minlength=72), group_N.bincount(minlength=72)
        assert ((hidden > 0) & (hidden < size)).sum() <= 1


def test_truncation_chooses_in_the_last_group_alone():
    noise, attention = _noise(40, 48), _attention(40, 48)
    masks = [EvolvedMasking(truncation=name)(noise, (6, 8), 0.6, attention) for name in get_args(Truncation)]
    hierarchy, depth = _cut_tree(masks[0])
    for image, group_N in enumerate(hierarchy.cut(depth)):
        hidden = [group_N[mask.masked[image]].bincount(minlength=2 * 48) for mask in masks]
        assert torch.equal(*hidden)
    assert not torch.equal(masks[0].masked, masks[1].masked)


def test_every_order_of_groups_is_equally_likely():
    images = 6000
    affinity = torch.tensor([[9.0, 8, 2, 1], [8, 9, 2, 1], [2, 2, 9, 1], [1, 1, 1, 9]]).expand(images, 4, 4)
    orders = torch.zeros(images, 3, dtype=torch.long)  # of the groups {0, 1}, {2}, {3}: when each is hidden first
    for count in (1, 2, 3):
        mask = EvolvedMasking(ratio=count / 4, depth=0.25)(_noise(images, 4), (2, 2), affinity=affinity)
        assert _cut_tree(mask)[1][0] == 2
        orders += torch.stack((mask.masked[:, :2].any(dim=1), mask.masked[:, 2], mask.masked[:, 3]), dim=1)
    _, counts = orders.unique(dim=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_the_tree_is_that_of_the_affinity_asked_for(affinity):
    noise, attention = _noise(3, 30), _attention(3, 30)
    mask = EvolvedMasking(affinity=affinity, linkage="average")(noise, (5, 6), 0.5, attention)
    expected = build_hierarchy(AFFINITIES[affinity](attention.double()), "average")
    assert torch.equal(_cut_tree(mask)[0].children, expected.children)


def test_masks_cut_from_trees_that_are_there_are_the_same():
    masking = EvolvedMasking(ratio=0.6, depth=None)
    generator = torch.Generator().manual_seed(0)
    noise, affinity = torch.rand(3, 20, generator=generator), torch.rand(3, 20, 20, generator=generator)
    mask = masking(noise, (4, 5), 0.4, affinity)
    assert mask.hierarchy is not None
    again = masking.cut(mask.hierarchy, noise, mask.count, 0.4)
    assert again.masked.equal(mask.masked) and again.depth is not None and again.depth.equal(mask.depth)


def test_fewer_trees_than_masks_serve_rows_that_follow_each_other():
    noise, attention = _noise(6, 30), _attention(2, 30)
    shared = EvolvedMasking()(noise, (5, 6), 0.5, attention)
    one_by_one = EvolvedMasking()(noise, (5, 6), 0.5, attention.repeat_interleave(3, dim=0))
    assert torch.equal(shared.masked, one_by_one.masked)
    assert not torch.equal(shared.masked[0], shared.masked[1]), "masks of one tree differ by their noise"
    assert torch.equal(_cut_tree(shared)[0].children, _cut_tree(one_by_one)[0].children)
    assert len(shared.masked) == len(_cut_tree(shared)[0].height) == 6


@pytest.mark.parametrize("affinity", AFFINITIES)
def test_autocast_around_it_changes_nothing(affinity):
    noise, attention = _noise(4, 64), _attention(4, 64)
    masking = EvolvedMasking(affinity=affinity)
    with torch.autocast("cpu", torch.bfloat16):
        inside = masking(noise, (8, 8), 0.5, attention)
    outside = masking(noise, (8, 8), 0.5, attention)
    assert torch.equal(_cut_tree(inside)[0].similarity, _cut_tree(outside)[0].similarity)
    assert torch.equal(inside.masked, outside.masked)


def test_attention_that_requires_a_gradient_is_taken_as_it_is():
    attention = _attention(2, 12).requires_grad_()
    mask = EvolvedMasking()(_noise(2, 12), (3, 4), 0.5, attention)
    assert not _cut_tree(mask)[0].similarity.requires_grad


# What a user can get wrong


@pytest.mark.parametrize(
    ("affinity", "value"),
    # Of infinity in one direction the lesser one is finite; a softmax that has diverged gives NaN.
    [(name, float("nan")) for name in AFFINITIES] + [(name, float("inf")) for name in AFFINITIES if name != "mutual"],
)
def test_a_model_that_has_diverged_is_named(affinity, value):
    attention = _attention(2, 12)
    attention[1, 3, 4] = value
    with pytest.raises(NonFiniteAffinity, match="lower the learning rate"):
        EvolvedMasking(affinity=affinity)(_noise(2, 12), (3, 4), 0.5, attention)


def test_an_affinity_that_is_missing_or_of_another_shape_is_refused():
    noise = _noise(2, 12)
    with pytest.raises(ValueError, match=r"need the attention between patches, an affinity of \(2, 12, 12\), but got none"):
        EvolvedMasking()(noise, (3, 4), 0.5)
    for shape in ((2, 13, 13), (4, 12, 12), (0, 12, 12), (12, 12)):
        with pytest.raises(ValueError, match=r"an affinity of \(2, 12, 12\), but got one of \("):
            EvolvedMasking()(noise, (3, 4), 0.5, torch.rand(shape))
    with pytest.raises(ValueError, match=r"noise must be \(images, 4 \* 4 = 16\), not \(2, 12\)"):
        EvolvedMasking()(noise, (4, 4), 0.5, _attention(2, 12))


def test_settings_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="linkage must be one of weighted, average, not 'single'"):
        EvolvedMasking(linkage="single")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match="affinity must be one of attention, popularity, profile, mutual, either, not 'cosine'"
    ):
        EvolvedMasking(affinity="cosine")
    with pytest.raises(ValueError, match="truncation must be one of subtree, scattered, not 'first'"):
        EvolvedMasking(truncation="first")  # type: ignore[arg-type]
    for ratio in (0, 1, -1, 1.2):
        with pytest.raises(ValueError, match="the mask ratio must lie strictly between 0 and 1, not"):
            EvolvedMasking(ratio=ratio)
    for depth in (-0.1, 1, 3):
        with pytest.raises(ValueError, match="depth is a share of the height, from 0 up to but not including 1, not"):
            EvolvedMasking(depth=depth)
