from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evomask.data.decode import UnreadableImage
from evomask.data.spread import spread, spread_images


class Source:
    """Images that are their number; those in `broken` cannot be read."""

    classes: tuple[str, ...] = ()

    def __init__(self, count: int, broken: tuple[int, ...] = ()):
        self._count, self._broken = count, broken

    def __len__(self) -> int:
        return self._count

    def image(self, index: int) -> Tensor:
        if index in self._broken:
            raise UnreadableImage("broken")
        return torch.full((3, 9, 12), index, dtype=torch.uint8)

    def label(self, index: int) -> None:
        return None

    def name(self, index: int) -> str:
        return str(index)


@given(st.integers(1, 50), st.integers(0, 200))
def test_numbers_are_all_there_are_or_evenly_apart(count: int, total: int) -> None:
    chosen = spread(count, total)
    assert len(chosen) == min(count, total)
    if total <= count:
        assert chosen == list(range(total))
    gaps = {after - before for before, after in pairwise([*chosen, total])} if chosen else {0}
    assert max(gaps) - min(gaps) <= 1


def test_they_come_from_all_over_the_source():
    images, indices = spread_images(Source(100), (4, 6), 3, 5)
    assert indices == [0, 20, 40, 60, 80]
    assert images.shape == (5, 3, 4, 6) and images.dtype == torch.uint8
    assert images[:, 0, 0, 0].tolist() == indices


def test_the_next_of_the_same_part_takes_the_place_of_a_broken_one():
    assert spread_images(Source(9, broken=(0, 1, 3, 4, 5)), (4, 6), 3, 3)[1] == [2, 6]


def test_a_small_source_gives_each_image_once():
    assert spread_images(Source(3), (4, 6), 3, 8)[1] == [0, 1, 2]


def test_nothing_readable_gives_nothing():
    images, indices = spread_images(Source(2, broken=(0, 1)), (4, 6), 3, 2)
    assert images.shape == (0, 3, 4, 6) and indices == []
