"""Images at several scales: their shapes by hand, and boxes."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from evomask.data.scaled_images import ScaledImages, thumbnail


class Pictures:
    classes: ClassVar[list[str]] = []

    def __init__(self, *images: Tensor):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def image(self, index: int) -> Tensor:
        return self._images[index]

    def label(self, index: int) -> None:
        return None

    def name(self, index: int) -> str:
        return f"picture {index}"


def test_shapes_by_hand() -> None:
    images = ScaledImages(Pictures(torch.zeros(3, 300, 400, dtype=torch.uint8)), None, 1024, (0.5, 1.0), (16, 16))
    # 1024 over 400 is 2.56: 768 x 1024, both of them multiples of 16; half of it is 384 x 512
    assert [tuple(image.shape) for image in images[0]] == [(3, 384, 512), (3, 768, 1024)]
    images = ScaledImages(Pictures(torch.zeros(1, 100, 70, dtype=torch.uint8)), None, 64, (1.0, 2**0.5, 0.01), (8, 8))
    # 44.8 is nearer to 48 than to 40; 90.5 to 88, 63.4 to 64; nothing is less than a patch
    assert [tuple(image.shape) for image in images[0]] == [(1, 64, 48), (1, 88, 64), (1, 8, 8)]


def test_a_box_is_cut_out_and_scaled_as_the_whole_image() -> None:
    image = torch.zeros(1, 60, 80, dtype=torch.uint8)
    image[:, 20:40, 10:50] = 200
    images = ScaledImages(Pictures(image), [(9.6, 20.4, 50.3, 39.9)], 160, (1.0,), (8, 8))
    [found] = images[0]
    assert found.shape == (1, 40, 80)
    assert found.unique().tolist() == [200]
    whole = ScaledImages(Pictures(image), None, 160, (1.0,), (8, 8))[0][0]
    assert whole.shape == (1, 120, 160)
    beyond = ScaledImages(Pictures(image), [(-5, -5, 500, 500)], 80, (1.0,), (4, 4))[0][0]
    assert torch.equal(beyond, image)


def test_what_cannot_be_is_named() -> None:
    pictures = Pictures(torch.zeros(1, 60, 80, dtype=torch.uint8))
    with pytest.raises(ValueError, match="the box of picture 0, 90, 10 to 95, 20, lies outside its 80 x 60 px"):
        ScaledImages(pictures, [(90, 10, 95, 20)], 80, (1.0,), (8, 8))[0]
    for long_side, scales in ((0, (1.0,)), (64, ()), (64, (1.0, 0.0))):
        with pytest.raises(ValueError, match="must be above 0"):
            ScaledImages(pictures, None, long_side, scales, (8, 8))


def test_a_thumbnail_shows_all_of_an_image_on_white() -> None:
    made = thumbnail(torch.zeros(3, 10, 40, dtype=torch.uint8), 16)
    assert made.shape == (3, 16, 16)
    dark = (made == 0).all(dim=0).numpy()
    assert np.array_equal(dark.any(axis=1), [6 <= row < 10 for row in range(16)])
    assert set(made.unique().tolist()) == {0, 255}
