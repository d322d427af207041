"""The figures of the analyses: what they draw is what they are given."""

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb

from evomask.figures.agreement import agreement_curves
from evomask.figures.attention_distance import attention_distances
from evomask.figures.attention_heads import attention_by_head, in_colours
from evomask.figures.class_attention import class_token_attention
from evomask.figures.gradient_by_depth import gradients_by_depth
from evomask.figures.mask_difficulty import mask_difficulty
from evomask.figures.style import LINES, head_colours
from evomask.figures.tree import open_largest, trees_of_patches
from evomask.figures.tree_health import tree_health_curves
from evomask.masking import build_hierarchy

GRID = (3, 4)


def line(ax, label):
    (found,) = (each for each in ax.lines if each.get_label() == label)
    return np.asarray(found.get_ydata()).tolist()


def test_distances_have_a_dot_a_head_and_a_line_through_their_means():
    distances = torch.tensor([[1.0, 3.0], [2.0, 2.0], [4.0, 1.0]])
    (ax,) = attention_distances({"one": distances}, GRID, patch=8).axes
    assert line(ax, "mean of the heads") == [2, 2, 2.5]
    assert sorted(y for each in ax.lines[1:3] for y in each.get_ydata()) == [1, 1, 2, 2, 3, 4]
    both = attention_distances({"one": distances, "other": distances + 1}, GRID, patch=8).axes[0]
    assert [text.get_text() for text in both.get_legend().get_texts()] == ["even attention", "one", "other"]


def test_the_strongest_head_gives_the_colour_and_its_strength_the_brightness():
    attention = np.array([[0.4, 0.1, 0.0], [0.0, 0.3, 0.0]])  # heads x patches
    colours = in_colours(attention)
    first, second = head_colours(2)
    assert np.allclose(colours[0], first) and np.allclose(colours[1], second) and np.allclose(colours[2], 0)
    assert len(np.unique(head_colours(12), axis=0)) == 12


def test_heads_of_two_queries(originals):
    attention = torch.rand(2, 2, 3, 12, generator=torch.Generator().manual_seed(0))
    figure = attention_by_head(originals, attention, GRID, [(0, 1), (2, 3)], block=5)
    axes = np.array(figure.axes).reshape(2, 4)
    assert [ax.get_title() for ax in axes[0]] == ["query", "block 5", "query", "block 5"]
    shown = axes[1, 3].images[0].get_array()
    assert np.allclose(shown, in_colours(attention[1, 1].numpy()).reshape(3, 4, 3))
    assert axes[1, 3].lines[0].get_xydata().tolist() == [[3.5, 2.5]]


def test_class_attention_is_the_mean_and_each_head(originals):
    attention = torch.rand(2, 3, 12, generator=torch.Generator().manual_seed(0))
    axes = np.array(class_token_attention(originals, attention, GRID).axes).reshape(2, 5)
    assert [ax.get_title() for ax in axes[0]] == ["original", "mean of 3", "head 1", "head 2", "head 3"]
    assert np.allclose(axes[1, 4].images[0].get_array().ravel(), attention[1, 2])
    assert axes[1, 1].texts[0].get_text() == f"up to {attention[1].mean(dim=0).max():.1%}"


def test_difficulty_is_the_mean_over_images():
    (ax,) = mask_difficulty({"run": torch.tensor([[1.0, 3.0], [4.0, 6.0]])}, (0.0, 0.5)).axes
    assert line(ax, "evolved mask") == [2, 5] and line(ax, "random mask") == [2, 2]


def test_gradients_of_several_models():
    (ax,) = gradients_by_depth({"one": [1e-4, 2e-4], "other": [2e-4, 0.0]}).axes
    assert line(ax, "one") == [1e-4, 2e-4] and line(ax, "other") == [2e-4, 0]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "other"]


def test_health_by_step():
    rows = [{"step": step, "balance": 2.0 - step, "largest_group_25": 0.1, "largest_group_50": 0.2, "largest_group_75": 0.6}
            for step in (0, 1)]  # fmt: skip
    left, right = tree_health_curves(rows).axes
    assert np.asarray(left.lines[0].get_xydata()).tolist() == [[0, 2], [1, 1]]
    assert line(right, "cut at 75% of the height") == [0.6, 0.6]


def test_agreement_is_drawn_as_the_mean_over_seeds():
    seeds = [(np.array([0.0, 1.0]), np.array([0.2, 0.4])), (np.array([0.0, 0.5, 1.0]), np.array([0.4, 0.4, 0.8]))]
    (ax,) = agreement_curves({"attention": {"evolved masks": seeds}}, {"chance": 0.1}, "purity").axes
    mean = line(ax, "evolved masks")
    assert (mean[0], mean[30], mean[-1]) == pytest.approx((0.3, 0.35, 0.6))
    assert [text.get_text() for text in ax.texts] == ["chance"]


def balanced():
    number = torch.arange(16)
    return build_hierarchy(-(number[:, None] ^ number).double().clamp(min=1).log2().floor()[None])


def test_the_largest_node_is_opened_first():
    nodes = open_largest(balanced(), 0, groups=4)
    assert [node.depth for node in nodes] == [0, 1, 1, 2, 2, 2, 2]
    ends = [node for node in nodes if node.below is None]
    assert sorted(node.place for node in ends) == [0, 1, 2, 3]
    assert nodes[0].place == 1.5
    everything = open_largest(balanced(), 0, groups=100)
    assert len(everything) == 31, "all of it, where there is no more"


def test_small_branches_are_left_out():
    """A chain of 64 patches: every merge adds one patch, less than a thirtieth, until so few are left that it is more."""
    similarity = -torch.maximum(torch.arange(64)[:, None], torch.arange(64)).double()
    nodes = open_largest(build_hierarchy(similarity[None]), 0, groups=5)
    assert len(nodes) == 1 and nodes[0].below is None


def test_nodes_show_their_patches_and_no_others(originals):
    tree = build_hierarchy(torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0)))
    figure = trees_of_patches(originals, tree, GRID, groups=3)
    for image, ax in enumerate(figure.axes):
        nodes = open_largest(tree, image, groups=3)
        assert len(ax.images) == len(nodes) == 5
        assert [text.get_text() for text in ax.texts] == [str(int(tree.size[image, node.number])) for node in nodes]
        root = ax.images[0].get_array()
        assert np.array_equal(root, originals[image].permute(1, 2, 0)), "the root is the whole image"


def test_lines_differ_in_colour_and_marker():
    assert len({to_rgb(colour) for colour, _ in LINES}) == len({marker for _, marker in LINES}) == len(LINES)
