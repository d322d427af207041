"""Evaluation sees whole images, undistorted, in exactly one size."""

import pytest
import torch
from torch import Tensor

from evomask.data.labelled import LabelledImages, fit


class Source:
    """Two images with labels, or without."""

    def __init__(self, classes: list[str]):
        self.classes = classes

    def __len__(self) -> int:
        return 2

    def image(self, index: int) -> Tensor:
        return torch.full((3, 20, 30), 100 * index, dtype=torch.uint8)

    def label(self, index: int) -> int | None:
        return 1 - index if self.classes else None

    def name(self, index: int) -> str:
        return f"photo_{index}.jpg"


def with_rectangle(height: int, width: int, inner: tuple[int, int]) -> Tensor:
    """A white rectangle in the middle of a black image."""
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    image[:, top : top + inner[0], left : left + inner[1]] = 255
    return image


def bright_box(image: Tensor) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is brighter than half."""
    rows, columns = (image.float().mean(dim=0) > 127).nonzero(as_tuple=True)
    top, left = int(rows.min()), int(columns.min())
    return top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1


def test_an_image_of_that_size_is_left_alone() -> None:
    image = torch.randint(0, 256, (3, 24, 32), dtype=torch.uint8)
    assert torch.equal(fit(image, (24, 32)), image)


@pytest.mark.parametrize(
    ("image", "inner", "size", "box"),
    [
        ((60, 120), (30, 30), (30, 30), (7, 7, 15, 15)),  # half as large: 30 x 60, of which 15 columns go on each side
        ((120, 60), (30, 30), (30, 30), (7, 7, 15, 15)),
        ((60, 120), (30, 30), (120, 120), (30, 30, 60, 60)),  # twice as large
        ((40, 40), (20, 10), (20, 40), (0, 15, 20, 10)),  # as it is: the top and bottom quarter go
        ((40, 80), (20, 20), (40, 40), (10, 10, 20, 20)),
        ((100, 50), (20, 40), (50, 100), (5, 10, 40, 80)),  # twice as large: 200 x 100, of which 75 rows go on each side
    ],
)
def test_shapes_keep_their_aspect_ratio_and_the_centre_stays(
    image: tuple[int, int], inner: tuple[int, int], size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    found = bright_box(fit(with_rectangle(*image, inner), size))
    assert found == pytest.approx(box, abs=1)


def test_what_is_not_shown_goes_on_every_side() -> None:
    """Half of the shorter side: 80 x 120 becomes 40 x 60, of which 10 rows and 20 columns go on each side."""
    found = bright_box(fit(with_rectangle(80, 120, (20, 28)), (20, 20), shown=0.5))
    assert found == pytest.approx((5, 3, 10, 14), abs=1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 100), (97, 1), (33, 50), (31, 32), (500, 333), (32, 33)])
@pytest.mark.parametrize("size", [(32, 32), (16, 48), (31, 7)])
def test_the_size_is_exact_whatever_the_image(shape: tuple[int, int], size: tuple[int, int]) -> None:
    fitted = fit(torch.randint(0, 256, (3, *shape), dtype=torch.uint8), size)
    assert fitted.shape == (3, *size)
    assert fitted.dtype == torch.uint8


@pytest.mark.parametrize("value", [0, 1, 128, 255])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_a_plain_image_stays_plain(value: int, channels: int) -> None:
    image = torch.full((channels, 13, 29), value, dtype=torch.uint8)
    assert torch.equal(fit(image, (16, 16)), torch.full((channels, 16, 16), value, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(20, 20), (80, 80)])
def test_sharp_edges_do_not_wrap_around(size: tuple[int, int]) -> None:
    """Bicubic filters overshoot at edges: past black and white, and never round to the other end of uint8."""
    fitted = fit(with_rectangle(40, 40, (20, 20)), size)[0]
    side = size[0]
    assert fitted[3 * side // 8 : 5 * side // 8, 3 * side // 8 : 5 * side // 8].min() > 200
    assert fitted[: side // 8].max() < 55


def test_fine_patterns_are_averaged_when_they_shrink() -> None:
    """Two white columns of every eight, just where an image an eighth as large would be sampled."""
    column = torch.arange(256) % 8
    stripes = (((column == 3) | (column == 4)) * 255).to(torch.uint8).expand(3, 256, 256)
    shrunk = fit(stripes, (32, 32))[:, :, 2:-2].float()
    assert (shrunk - 255 / 4).abs().max() < 10, "without antialiasing all of it would be white"


def test_items_are_images_with_labels() -> None:
    dataset = LabelledImages(Source(["cat", "dog"]), (8, 8))
    assert len(dataset) == 2
    image, label = dataset[1]
    assert label == 0
    assert torch.equal(image, torch.full((3, 8, 8), 100, dtype=torch.uint8))


def test_images_without_labels_are_a_clear_error() -> None:
    with pytest.raises(ValueError, match=r"photo_0\.jpg .* have no labels: put those of each class in a folder"):
        LabelledImages(Source([]), (8, 8))
