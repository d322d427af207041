import numpy as np
import pytest

from evomask.figures.paint import LEAST_SIDE, enlarged, paint_dot, paint_groups, paint_heat, paint_mask
from evomask.figures.style import COVERED


@pytest.fixture
def picture() -> np.ndarray:
    """(24, 32, 3), of 3 x 4 patches of 8 px."""
    return np.random.default_rng(0).integers(0, 200, (24, 32, 3)).astype(np.uint8)


def test_enlarging_repeats_pixels(picture):
    large = enlarged(picture)
    assert large.shape == (168, 224, 3) and max(large.shape) >= LEAST_SIDE
    assert (large[::7, ::7] == picture).all()


def test_hidden_patches_are_grey_and_the_others_as_they_were(picture):
    masked = np.zeros((3, 4), bool)
    masked[0, 1] = masked[2, 3] = True
    painted = paint_mask(picture, masked)
    grey = [int(COVERED[place : place + 2], 16) for place in (1, 3, 5)]
    hidden = np.kron(masked, np.ones((8, 8), bool))
    assert (painted[hidden] == grey).all() and (painted[~hidden] == picture[~hidden]).all()


def test_groups_have_their_colour_and_a_white_line_between(picture):
    group = np.array([[0, 0, 1, 1]] * 3)
    colours = np.array([[1, 0, 0, 1], [0, 0, 1, 1]], float)
    painted = paint_groups(picture, group, colours)
    assert (painted[:, 15:17] == 255).all()
    left, right = painted[:, :15].astype(int), painted[:, 17:].astype(int)
    assert (left[..., 0] > left[..., 1]).all() and (right[..., 2] > right[..., 1]).all()
    assert not (painted[:, :15] == 255).all(axis=2).any(), "and nowhere else"


def test_heat_is_dark_where_nothing_is_seen_and_marks_the_query(picture):
    seen = np.zeros((3, 4))
    seen[1, 2] = 0.4
    painted = paint_heat(seen, picture).astype(int).sum(axis=2)
    assert painted[12, 20] == painted.max() and painted[0, 0] == painted.min() < 30
    assert (paint_heat(np.zeros((3, 4)), picture) == paint_heat(np.zeros((3, 4)), picture)[0, 0]).all()
    dotted = paint_dot(enlarged(picture), (3, 4), (1, 2))
    assert tuple(dotted[round(1.5 * 56), round(2.5 * 56)]) == (255, 45, 32)
    assert (dotted[:56] == enlarged(picture)[:56]).all()
