import numpy as np
from matplotlib.colors import to_rgb

from evomask.figures.masks import mask_columns, mask_stages
from evomask.figures.style import COVERED
from evomask.masking import Mask

GRID = (3, 4)
GREY = (np.array(to_rgb(COVERED)) * 255).round()


def test_hidden_patches_are_grey_and_visible_ones_are_not(originals, snapshots, colours_of_patches):
    figure = mask_stages(originals, snapshots)
    axes = np.array(figure.axes).reshape(2, 1 + len(snapshots))
    for column, stage in enumerate(snapshots, start=1):
        for image in range(2):
            shown = colours_of_patches(figure, axes[image, column], GRID)
            grey = (np.abs(shown - GREY) <= 1).all(axis=-1)
            assert grey.ravel().tolist() == stage.masked[image].tolist()
    for image in range(2):
        shown = colours_of_patches(figure, axes[image, 0], GRID)
        assert not (np.abs(shown - GREY) <= 1).all(axis=-1).any()


def test_stages_and_depths_are_named(originals, snapshots):
    figure = mask_stages(originals, snapshots)
    titles = [ax.get_title() for ax in figure.axes[:4]]
    assert titles == ["original", "epoch 0\n0% of training", "epoch 2\n50% of training", "epoch 4\n75% of training"]
    depth, height = snapshots[1].depth[1], snapshots[1].height[1]
    assert [text.get_text() for text in figure.axes[4 + 2].texts] == [f"depth {depth} of {height}"]


def test_masks_that_are_cut_from_no_tree_have_no_depth(originals, snapshots):
    figure = mask_columns(originals, {"random": Mask(snapshots[0].masked, 9)}, GRID)
    assert len(figure.axes) == 2 * 2
    assert not any(ax.texts for ax in figure.axes)
