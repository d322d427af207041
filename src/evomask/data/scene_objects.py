"""What scenes are made of: categories of objects as named parts, and the textures of parts and backgrounds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
"""(k, 2) x and y of a polygon's corners; an object fills the square [-1, 1], y points down."""


@dataclass(frozen=True)
class Part:
    """A part of a category; parts of one name (the wheels of a car) share their texture."""

    name: str
    outline: Points


USUAL_PATTERNS = {
    "house": ("bricks", "stripes"),
    "tree": ("marble", "dots"),
    "car": ("plain", "stripes"),
    "fish": ("waves", "dots"),
    "bird": ("waves", "stripes"),
    "flower": ("marble", "plain"),
    "boat": ("stripes", "bricks"),
    "robot": ("checks", "plain"),
    "mushroom": ("dots", "marble"),
    "lamp": ("checks", "bricks"),
}
"""What the parts of a category are usually painted with, as bark, feathers and bricks are in the world. Not always: see
`USUAL_SHARE`; and every pattern is usual for two or three categories, so that it takes more than a texture to tell them."""

USUAL_SHARE = 0.8


@dataclass(frozen=True)
class Place:
    """A kind of scene: what its upper and lower half look like, and what is usually found there."""

    above: str
    below: str
    objects: tuple[str, ...]


PLACES: dict[str, Place] = {
    "street": Place("plain", "bricks", ("house", "car", "lamp")),
    "lake": Place("marble", "waves", ("boat", "fish", "bird")),
    "field": Place("plain", "stripes", ("flower", "tree", "bird")),
    "garden": Place("marble", "dots", ("tree", "flower", "lamp")),
    "hall": Place("bricks", "checks", ("robot", "lamp", "bird")),
    "forest": Place("stripes", "marble", ("tree", "mushroom", "bird")),
    "playground": Place("dots", "checks", ("robot", "car", "house")),
    "harbour": Place("bricks", "waves", ("boat", "car", "house")),
    "market": Place("stripes", "dots", ("mushroom", "fish", "flower")),
    "workshop": Place("checks", "stripes", ("robot", "car", "boat")),
}
"""The classes of scenes. No texture and no object is found in one of them alone."""


def _box(name: str, left: float, top: float, right: float, bottom: float) -> Part:
    return _polygon(name, left, top, right, top, right, bottom, left, bottom)


def _polygon(name: str, *coordinates: float) -> Part:
    return Part(name, np.array(coordinates).reshape(-1, 2))


def _ellipse(name: str, x: float, y: float, radius_x: float, radius_y: float, turn: float = 0.0) -> Part:
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    points = np.stack([radius_x * np.cos(angle), radius_y * np.sin(angle)], axis=1)
    sine, cosine = np.sin(turn), np.cos(turn)
    return Part(name, points @ np.array([[cosine, sine], [-sine, cosine]]) + (x, y))


def _half_ellipse(name: str, x: float, y: float, radius_x: float, radius_y: float) -> Part:
    angle = np.linspace(np.pi, 2 * np.pi, 20)
    return Part(name, np.stack([x + radius_x * np.cos(angle), y + radius_y * np.sin(angle)], axis=1))


_PETALS = [
    _ellipse("petal", 0.36 * np.cos(turn), -0.4 + 0.36 * np.sin(turn), 0.3, 0.17, turn)
    for turn in np.arange(5) * 2 * np.pi / 5 - np.pi / 2
]

CATEGORIES: dict[str, tuple[Part, ...]] = {
    "house": (
        _box("wall", -0.7, -0.1, 0.7, 0.9),
        _polygon("roof", -0.9, -0.08, 0, -0.9, 0.9, -0.08),
        _box("door", -0.12, 0.35, 0.2, 0.9),
        _box("window", -0.55, 0.1, -0.25, 0.4),
        _box("window", 0.32, 0.1, 0.58, 0.4),
    ),
    "tree": (
        _box("trunk", -0.14, 0.05, 0.14, 0.95),
        _ellipse("crown", -0.25, -0.2, 0.5, 0.42),
        _ellipse("crown", 0.28, -0.2, 0.5, 0.42),
        _ellipse("crown", 0, -0.52, 0.48, 0.42),
    ),
    "car": (
        _polygon("cabin", -0.55, -0.02, -0.32, -0.5, 0.35, -0.5, 0.65, -0.02),
        _polygon("body", -0.95, 0.0, 0.8, -0.05, 0.97, 0.12, 0.95, 0.45, -0.95, 0.45),
        _polygon("window", -0.4, -0.05, -0.26, -0.4, 0.28, -0.4, 0.48, -0.05),
        _ellipse("wheel", -0.55, 0.47, 0.25, 0.25),
        _ellipse("wheel", 0.55, 0.47, 0.25, 0.25),
    ),
    "fish": (
        _polygon("tail", 0.45, 0, 0.97, -0.45, 0.85, 0, 0.97, 0.45),
        _polygon("fin", -0.3, -0.3, 0.1, -0.75, 0.25, -0.28),
        _ellipse("body", -0.15, 0, 0.75, 0.42),
        _ellipse("eye", -0.6, -0.1, 0.09, 0.09),
    ),
    "bird": (
        _box("leg", -0.12, 0.4, -0.04, 0.95),
        _box("leg", 0.16, 0.4, 0.24, 0.95),
        _polygon("tail", 0.4, 0.0, 0.98, -0.2, 0.9, 0.22, 0.45, 0.3),
        _ellipse("body", 0.0, 0.15, 0.58, 0.36),
        _polygon("beak", -0.68, -0.45, -1.0, -0.3, -0.68, -0.22),
        _ellipse("head", -0.48, -0.34, 0.28, 0.28),
        _polygon("wing", -0.2, 0.05, 0.5, -0.5, 0.45, 0.2),
    ),
    "flower": (
        _box("stem", -0.06, -0.2, 0.06, 0.95),
        _ellipse("leaf", 0.28, 0.5, 0.26, 0.1, -0.5),
        _ellipse("leaf", -0.28, 0.62, 0.26, 0.1, 0.5),
        *_PETALS,
        _ellipse("centre", 0, -0.4, 0.17, 0.17),
    ),
    "boat": (
        _box("mast", -0.05, -0.92, 0.05, 0.35),
        _polygon("sail", 0.08, -0.85, 0.08, 0.2, 0.78, 0.2),
        _polygon("sail", -0.08, -0.6, -0.08, 0.2, -0.6, 0.2),
        _polygon("hull", -0.95, 0.3, 0.95, 0.3, 0.6, 0.8, -0.6, 0.8),
    ),
    "robot": (
        _box("arm", -0.82, -0.35, -0.52, 0.35),
        _box("arm", 0.52, -0.35, 0.82, 0.35),
        _box("leg", -0.4, 0.35, -0.1, 0.95),
        _box("leg", 0.1, 0.35, 0.4, 0.95),
        _box("torso", -0.5, -0.4, 0.5, 0.38),
        _box("head", -0.34, -0.95, 0.34, -0.42),
        _ellipse("eye", -0.15, -0.7, 0.09, 0.09),
        _ellipse("eye", 0.15, -0.7, 0.09, 0.09),
    ),
    "mushroom": (
        _polygon("stem", -0.2, -0.1, 0.2, -0.1, 0.32, 0.9, -0.32, 0.9),
        _half_ellipse("cap", 0, 0.05, 0.92, 0.85),
        _ellipse("spot", -0.4, -0.25, 0.14, 0.12),
        _ellipse("spot", 0.35, -0.3, 0.16, 0.13),
        _ellipse("spot", 0.0, -0.55, 0.13, 0.11),
    ),
    "lamp": (
        _half_ellipse("base", 0, 0.95, 0.5, 0.25),
        _box("pole", -0.07, -0.25, 0.07, 0.8),
        _polygon("shade", -0.3, -0.92, 0.3, -0.92, 0.65, -0.2, -0.65, -0.2),
    ),
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (200, 50, 47),
    "orange": (230, 140, 40),
    "yellow": (232, 206, 73),
    "green": (78, 150, 72),
    "cyan": (72, 180, 180),
    "blue": (56, 97, 179),
    "purple": (128, 78, 160),
    "pink": (226, 135, 168),
    "brown": (122, 84, 56),
    "white": (236, 234, 226),
    "grey": (134, 138, 142),
    "black": (42, 42, 48),
}
GREY = 128.0


@dataclass(frozen=True)
class Texture:
    """Two colours and how they alternate.

    Attributes:
        pattern: a name in PATTERNS.
        colours: (2, 3) float, 0 to 255.
        frequency: repeats over the square that an object fills.
        turn: direction in radians.
        shift: (2,) where the pattern begins.
        name: of the first colour, in COLOURS.
    """

    pattern: str
    colours: NDArray[np.float32]
    frequency: float
    turn: float
    shift: NDArray[np.float64]
    name: str

    def paint(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Colours (..., 3) at places (...) in the coordinates of the object."""
        sine, cosine = np.sin(self.turn), np.cos(self.turn)
        u = (cosine * x + sine * y) * self.frequency + self.shift[0]
        v = (cosine * y - sine * x) * self.frequency + self.shift[1]
        share = PATTERNS[self.pattern](u, v).astype(np.float32)[..., None]
        return self.colours[0] * (1 - share) + self.colours[1] * share


def draw_texture(
    rng: np.random.Generator,
    frequencies: tuple[float, float],
    contrasts: tuple[float, float],
    patterns: Sequence[str] | None = None,
    vividness: float = 1.0,
) -> Texture:
    """A random texture: its colours at random, its pattern one of `patterns` or of all, not far from upright.

    Contrast and vividness are in [0, 1]: how far the second colour is from the first, and the first from grey.
    """
    name = str(rng.choice(list(COLOURS)))
    first = GREY + vividness * (np.array(COLOURS[name]) - GREY) + rng.uniform(-18, 18, 3)
    contrast = rng.uniform(*contrasts)
    second = first * (1 - contrast) if first.mean() > 110 else first + 170 * contrast
    return Texture(
        pattern=str(rng.choice(patterns or list(PATTERNS))),
        colours=np.clip([first, second], 0, 255).astype(np.float32),
        frequency=rng.uniform(*frequencies),
        turn=rng.uniform(-0.35, 0.35),
        shift=rng.uniform(0, 8, 2),
        name=name,
    )


def _fraction(value: NDArray[np.float64]) -> NDArray[np.float64]:
    return value - np.floor(value)


def _bricks(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    row = np.floor(v * 2)
    return ((_fraction(u + row / 2) < 0.12) | (_fraction(v * 2) < 0.22)).astype(float)


def _marble(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    return 0.5 + 0.5 * np.sin(5 * u + 2.3 * np.sin(3.1 * v + 1.7 * np.sin(2.3 * u)))


PATTERNS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "plain": lambda u, v: np.zeros_like(u),
    "stripes": lambda u, v: (_fraction(u) < 0.5).astype(float),
    "checks": lambda u, v: ((_fraction(u) < 0.5) ^ (_fraction(v) < 0.5)).astype(float),
    "dots": lambda u, v: ((_fraction(u) - 0.5) ** 2 + (_fraction(v) - 0.5) ** 2 < 0.09).astype(float),
    "bricks": _bricks,
    "waves": lambda u, v: (_fraction(u + 0.25 * np.sin(2 * np.pi * v)) < 0.5).astype(float),
    "marble": _marble,
}


def part_names(category: str) -> Sequence[str]:
    """The names of a category's parts, each once, in the order in which they are drawn."""
    return list(dict.fromkeys(part.name for part in CATEGORIES[category]))
