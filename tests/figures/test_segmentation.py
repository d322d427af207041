import numpy as np
import torch

from evomask.figures.segmentation import class_colours, segmentations


def test_a_column_an_image_and_a_legend_of_what_is_there() -> None:
    images = [torch.zeros(3, 6, 9, dtype=torch.uint8), torch.zeros(1, 8, 5, dtype=torch.uint8)]
    labels = [torch.zeros(6, 9, dtype=torch.long), torch.full((8, 5), -1)]
    labels[1][0] = 2
    predicted = [torch.zeros(6, 9, dtype=torch.long), torch.full((8, 5), 3)]
    figure = segmentations(images, labels, predicted, ["sky", "road", "tree", "car"])
    figure.draw_without_rendering()
    assert len(figure.axes) == 6
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"sky", "tree", "car"}
    colours = class_colours(4)
    shown = np.asarray(figure.axes[3].images[0].get_array())  # the truth of the second
    assert (shown[0] == colours[2]).all()
    assert (shown[1:] == [0x8B, 0x90, 0x98]).all()


def test_colours_differ() -> None:
    assert len(np.unique(class_colours(150), axis=0)) == 150
