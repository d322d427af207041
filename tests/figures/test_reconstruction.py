import numpy as np
import torch
from matplotlib.colors import to_rgb

from evomask.figures.reconstruction import denormalise, reconstructions
from evomask.figures.style import COVERED

GRID = (3, 4)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def test_denormalising_gives_the_pixels_back(originals, images):
    assert denormalise(images, MEAN, STD).equal(originals)


def test_values_out_of_range_are_cut_off():
    images = torch.tensor([-100.0, 0.0, 100.0]).view(1, 1, 1, 3)
    assert denormalise(images, [0.5], [0.5]).flatten().tolist() == [0, 128, 255]


def test_a_trial_is_a_masked_and_a_restored_picture(originals, snapshots, colours_of_patches):
    stage = snapshots[1]
    figure = reconstructions(originals, [("mine", stage.masked, stage.reconstruction)], GRID, MEAN, STD)
    axes = np.array(figure.axes).reshape(2, 3)
    assert [ax.get_title() for ax in axes[0]] == ["original", "mine", "restored"]
    restored = denormalise(stage.reconstruction, MEAN, STD)
    for image in range(2):
        original, masked, last = axes[image]
        assert np.array_equal(original.images[0].get_array(), originals[image].permute(1, 2, 0))
        assert np.array_equal(last.images[0].get_array(), restored[image].permute(1, 2, 0))
        shown = colours_of_patches(figure, masked, GRID)
        grey = (np.abs(shown - np.array(to_rgb(COVERED)) * 255) <= 1).all(axis=-1)
        assert grey.ravel().tolist() == stage.masked[image].tolist()
