"""Originals beside what is left of them: pairs, row by row."""

import numpy as np
import pytest
import torch

from evomask.figures.tokens import token_reconstructions


@pytest.mark.parametrize(("images", "rows", "columns"), [(1, 1, 2), (4, 1, 8), (6, 2, 8)])
def test_every_image_stands_beside_its_own_restoration(images: int, rows: int, columns: int) -> None:
    originals = torch.arange(images, dtype=torch.uint8).view(-1, 1, 1, 1).expand(images, 3, 16, 16)
    figure = token_reconstructions(originals, originals + 100, (2, 2))
    assert len(figure.axes) == rows * columns
    shown = [int(np.asarray(ax.images[0].get_array())[0, 0, 0]) for ax in figure.axes if ax.images]
    assert shown == [value for image in range(images) for value in (image, 100 + image)]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["original", "2 × 2 tokens"]
