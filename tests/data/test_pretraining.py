import logging

import pytest
import torch
from torchvision.transforms import v2

from evomask.data.decode import UnreadableImage
from evomask.data.pretraining import PretrainingImages
from evomask.data.sampler import sample_seed


class Source:
    """Images whose every pixel is their number, some of them broken."""

    classes: list[str] = []  # noqa: RUF012

    def __init__(self, count=20, broken=()):
        self.count, self.broken, self.reads = count, set(broken), []

    def __len__(self):
        return self.count

    def image(self, index):
        self.reads.append(index)
        if index in self.broken:
            raise UnreadableImage("cut short")
        return torch.full((3, 40, 30), index, dtype=torch.uint8)

    def label(self, index):
        return None

    def name(self, index):
        return f"file{index}"


def dataset(source=None, size=(16, 24), **options):
    return PretrainingImages(source or Source(), size, channels=3, patches=24, seed=5, **options)


def test_shapes_and_ranges():
    image, noise, index = dataset()[2, 7]
    assert (image.shape, image.dtype, index) == ((3, 16, 24), torch.uint8, 7)
    assert (noise.shape, noise.dtype) == ((24,), torch.float32)
    assert 0 <= noise.min() <= noise.max() < 1
    assert (image == 7).all()


def test_draws_are_a_function_of_epoch_and_index():
    class Gradient(Source):
        def image(self, index):
            return torch.arange(40 * 30).view(1, 40, 30).expand(3, -1, -1).remainder(251).to(torch.uint8)

    data = dataset(Gradient())
    first = data[0, 3]
    data[4, 9]
    torch.manual_seed(99)
    again = data[0, 3]
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], data[1, 3][1])
    assert not torch.equal(first[1], data[0, 4][1])


def test_noise_does_not_change_with_the_augmentation():
    assert torch.equal(dataset()[0, 1][1], dataset(scale=(0.9, 1.0), flip=False)[0, 1][1])


def test_crop_is_torchvisions():
    picture = torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    class One(Source):
        def image(self, index):
            return picture

    mine = dataset(One(), scale=(0.3, 0.8))[1, 2][0]
    torch.manual_seed(sample_seed(5, 1, 2))
    torch.rand(24)
    crop = v2.RandomResizedCrop((16, 24), scale=(0.3, 0.8), interpolation=v2.InterpolationMode.BICUBIC, antialias=True)
    assert torch.equal(mine, v2.RandomHorizontalFlip()(crop(picture)))


def test_a_broken_file_is_named_once_and_replaced_by_always_the_same(caplog):
    data = dataset(Source(broken=[4]))
    with caplog.at_level(logging.WARNING, logger="evomask"):
        image, noise, used = data[0, 4]
        assert data[0, 4][2] == used
    assert used != 4
    assert (image == used).all()
    assert torch.equal(noise, dataset()[0, 4][1])
    assert [record.getMessage() for record in caplog.records] == [
        "file4 cannot be read and is replaced by another image: cut short"
    ]


def test_where_nothing_can_be_read_it_says_so_by_the_index():
    image, _, used = dataset(Source(count=3, broken=range(3)))[0, 1]
    assert used == -1
    assert image.shape == (3, 16, 24)


def test_scale_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"--data\.crop-scale"):
        dataset(scale=(0.5, 1.5))
