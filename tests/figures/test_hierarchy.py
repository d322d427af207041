import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba, to_rgba_array
from scipy.cluster import hierarchy as scipy_hierarchy

from evomask.figures.hierarchy import boundaries, dendrogram, node_colours, node_places, partitions
from evomask.figures.style import FAINT
from evomask.masking import build_hierarchy

GRID = (3, 4)


@pytest.fixture
def trees():
    return build_hierarchy(torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0)))


def leaves_under(hierarchy, image, node):
    if node < hierarchy.patches:
        return [node]
    children = hierarchy.children[image, node - hierarchy.patches].tolist()
    return [leaf for child in children for leaf in leaves_under(hierarchy, image, child)]


def test_boundaries_run_between_neighbours_of_different_groups():
    group_HW = np.array([[7, 7, 5], [7, 5, 5]])
    lines = {tuple(map(tuple, line)) for line in boundaries(group_HW).tolist()}
    assert lines == {((2, 0), (2, 1)), ((1, 1), (1, 2)), ((1, 1), (2, 1))}


def test_one_group_has_no_boundary():
    assert boundaries(np.zeros((2, 3), dtype=int)).shape == (0, 2, 2)


def test_a_nodes_place_is_the_mean_place_of_its_patches(trees):
    places, position = node_places(trees), trees.leaf_position()
    for image in range(2):
        for node in range(23):
            patches = leaves_under(trees, image, node)
            assert places[image, node] == position[image, patches].double().mean().item()


def test_patches_of_a_group_share_a_colour_and_groups_differ(originals, trees, colours_of_patches):
    figure = partitions(torch.full_like(originals, 128), trees, GRID, fractions=(0.0, 0.5))
    assert [ax.get_title() for ax in figure.axes[:3]] == [
        "original",
        "cut at 0%\nof the height",
        "cut at 50%\nof the height",
    ]
    level = 1 + trees.height // 2
    for image in range(2):
        ax = figure.axes[3 * image + 2]
        group_N = trees.cut(level)[image].tolist()
        shown = colours_of_patches(figure, ax, GRID).reshape(-1, 3).tolist()
        pairs = {(group, tuple(colour)) for group, colour in zip(group_N, shown, strict=True)}
        assert len(pairs) == len({group for group, _ in pairs}) == len({colour for _, colour in pairs})
        groups = len(set(group_N))
        assert [text.get_text() for text in ax.texts] == [f"depth {level[image]}/{trees.height[image]} · {groups} groups"]


def test_a_fraction_outside_the_tree_is_refused(originals, trees):
    with pytest.raises(ValueError, match="up to but not including 1"):
        partitions(originals, trees, GRID, fractions=(1.0,))


def test_the_dendrogram_stands_as_scipy_draws_it(trees):
    figure = dendrogram(trees, image=1)
    (joints,) = [artist for artist in figure.axes[0].collections if isinstance(artist, LineCollection)]
    found = sorted(tuple(joint[:, 0].round(6)) for joint in joints.get_segments())
    drawn = scipy_hierarchy.dendrogram(trees.linkage(1), no_plot=True)
    # scipy's first patch stands at 5, the next at 15, ...
    expected = sorted(tuple(np.round((np.array(x) - 5) / 10, 6)) for x in drawn["icoord"])
    assert found == expected
    tops = sorted(joint[:, 1].max() for joint in joints.get_segments())
    assert tops == sorted(trees.level[1, 12:].tolist())


def test_the_dendrogram_colours_what_lies_below_the_cut(trees):
    figure = dendrogram(trees, image=0, depth=3)
    (joints,) = [artist for artist in figure.axes[0].collections if isinstance(artist, LineCollection)]
    group_N, colours = trees.cut(3)[0], node_colours(trees)[0]
    for merge, colour in enumerate(to_rgba_array(joints.get_color()), start=12):
        if trees.level[0, merge] <= 3:
            group = group_N[leaves_under(trees, 0, merge)[0]]
            assert np.allclose(colour, colours[group])
        else:
            assert np.allclose(colour, to_rgba(FAINT))
