"""Masks, partitions and attention painted into pixels in milliseconds, for pages that draw while a slider moves.

The other figures are matplotlib's: better to print, and a hundred times slower.
"""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb as rgb_of

from evomask.figures.attention import QUERY
from evomask.figures.style import COVERED

LEAST_SIDE = 224
"""Of a painted picture, in pixels."""

_HEAT = (255 * colormaps["magma"](np.arange(256))[:, :3]).round().astype(np.uint8)


def enlarged(picture: np.ndarray) -> np.ndarray:
    """(height, width, 3) uint8 pixels, each repeated until the longer side has LEAST_SIDE of them."""
    times = -(-LEAST_SIDE // max(picture.shape[:2]))
    return picture.repeat(times, axis=0).repeat(times, axis=1)


def paint_mask(picture: np.ndarray, masked_HW: np.ndarray) -> np.ndarray:
    """The picture with its hidden patches in grey."""
    painted = picture.copy()
    painted[_by_pixel(masked_HW, picture)] = _bytes(COVERED)
    return painted


def paint_groups(picture: np.ndarray, group_HW: np.ndarray, colour_M4: np.ndarray) -> np.ndarray:
    """The picture in grey, each group of patches in the colour of its node, and a white line between groups."""
    tint = _by_pixel((255 * colour_M4[group_HW][..., :3]).astype(np.uint16), picture)
    grey = picture.mean(axis=2, dtype=np.float32)[..., None].astype(np.uint16)
    painted = ((115 * grey + 140 * tint) // 255).astype(np.uint8)
    group = _by_pixel(group_HW, picture)
    across, down = group[:, 1:] != group[:, :-1], group[1:] != group[:-1]
    for painted_side, apart in ((painted[:, 1:], across), (painted[:, :-1], across), (painted[1:], down), (painted[:-1], down)):
        painted_side[apart] = 255
    return painted


def paint_heat(value_HW: np.ndarray, picture: np.ndarray, query: tuple[int, int] | None = None) -> np.ndarray:
    """A map of attention as large as the picture, from nothing (dark) to its highest value (bright), a dot on the query.

    Brightness is the square root, since attention is a few peaks over a wide low ground.
    """
    share = np.sqrt(value_HW / max(float(value_HW.max()), 1e-12))
    painted = _by_pixel(_HEAT[(255 * share).round().astype(int)], picture)
    return painted if query is None else paint_dot(painted, value_HW.shape, query)


def paint_dot(picture: np.ndarray, grid: tuple[int, ...], query: tuple[int, int]) -> np.ndarray:
    """A red dot with a white rim in the middle of a patch."""
    painted = picture.copy()
    height, width = picture.shape[:2]
    y, x = ((place + 0.5) * side / count for place, side, count in zip(query, (height, width), grid, strict=True))
    distance = np.hypot(*np.ogrid[-y : height - y, -x : width - x])
    painted[distance < 6] = 255
    painted[distance < 4] = _bytes(QUERY)
    return painted


def _by_pixel(values_HW: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """(H, W, ...) a patch -> (height, width, ...) a pixel."""
    rows, columns = values_HW.shape[:2]
    row = np.arange(picture.shape[0]) * rows // picture.shape[0]
    column = np.arange(picture.shape[1]) * columns // picture.shape[1]
    return values_HW[row[:, None], column]


def _bytes(colour: str) -> np.ndarray:
    return (255 * np.array(rgb_of(colour))).round().astype(np.uint8)
