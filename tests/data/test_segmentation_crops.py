"""Crops with their masks: the same geometry for both, and a function of seed, epoch and index alone."""

import pytest
import torch
from torch import Tensor

from evomask.data.image_masks import IGNORED
from evomask.data.segmentation_crops import PhotometricDistortion, SegmentationCrops, fitting_size, scaled


class Ramps:
    """Images whose pixels tell their label: red is 20 times the label, which grows from left to right."""

    def __init__(self, height: int = 20, width: int = 40, labels: int = 10):
        self.classes = [str(number) for number in range(labels)]
        self._mask = (torch.arange(width) * labels // width).expand(height, width).clone()

    def __len__(self) -> int:
        return 3

    def image(self, index: int) -> Tensor:
        return (20 * self._mask).to(torch.uint8).expand(3, -1, -1).clone()

    def name(self, index: int) -> str:
        return f"ramp {index}"

    def label(self, index: int) -> None:
        return None

    def mask(self, index: int) -> Tensor:
        return self._mask

    def mask_of(self, index: int, image: Tensor) -> Tensor:
        return self._mask


def crops(**options) -> SegmentationCrops:
    return SegmentationCrops(Ramps(), (16, 16), **({"sides": (20, 80), "seed": 0, "distort": False} | options))


def test_image_and_mask_go_together() -> None:
    for epoch in range(8):
        image, mask, used = crops(scale=(1.0, 1.0))[epoch, 1]
        assert image.shape == (3, 16, 16) and mask.shape == (16, 16) and used == 1
        assert (image[0] == 20 * mask).all()
        rising = (mask[0, -1] - mask[0, 0]) > 0
        assert (mask.diff(dim=1) >= 0).all() if rising else (mask.diff(dim=1) <= 0).all()


def test_draws_are_a_function_of_seed_epoch_and_index() -> None:
    options = {"scale": (0.5, 2.0), "distort": True}
    first = crops(**options)[3, 1]
    torch.rand(3)
    again, other = crops(**options)[3, 1], crops(**options)[4, 1]
    assert first[0].equal(again[0]) and first[1].equal(again[1])
    assert not first[0].equal(other[0])


def test_small_images_are_filled_up_and_not_learnt_from_there() -> None:
    image, mask, _ = crops(scale=(0.5, 0.5), fill=(7, 8, 9))[0, 0]
    outside = mask == IGNORED
    assert outside[10:].all() and not outside[:10].any()
    assert image[:, 12, 3].tolist() == [7, 8, 9]


def test_no_class_has_too_much_of_a_crop_where_that_can_be() -> None:
    shares = []
    for epoch in range(20):
        _, mask, _ = crops(scale=(1.0, 1.0), largest_share=0.26)[epoch, 0]
        shares.append(float(mask.flatten().long().bincount().max()) / mask.numel())
    assert max(shares) < 0.26  # 4 of 16 columns, never more


def test_images_fit_into_two_sides() -> None:
    assert fitting_size(torch.empty(3, 100, 200), (512, 2048)) == (512, 1024)
    assert fitting_size(torch.empty(3, 100, 1000), (512, 2048)) == (205, 2048)
    assert fitting_size(torch.empty(3, 1000, 500), (512, 2048), 0.5) == (512, 256)


def test_labels_are_never_mixed() -> None:
    mask = torch.tensor([[0, 9], [IGNORED, 9]])
    _, large = scaled(torch.zeros(3, 2, 2, dtype=torch.uint8), mask, (7, 5))
    assert set(large.unique().tolist()) == {0, 9, IGNORED}


def test_colours_are_distorted_and_never_change_places() -> None:
    torch.manual_seed(0)
    distortion = PhotometricDistortion(p=1.0)
    red = torch.zeros(3, 4, 4, dtype=torch.uint8)
    red[0] = 200
    for _ in range(10):
        assert distortion(red).float().mean(dim=(1, 2)).argmax() == 0
    with pytest.raises(ValueError, match="3 channels, not of 1"):
        crops(distort=True, fill=(0,))
