"""A scene, drawn and known: objects before a place, in random light, with the label of every pixel."""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache, cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from evomask.data.scene_objects import (
    CATEGORIES,
    PLACES,
    USUAL_PATTERNS,
    USUAL_SHARE,
    Place,
    Texture,
    draw_texture,
    part_names,
)
from evomask.data.scene_questions import Question, ask_about

CATEGORY_NAMES = list(CATEGORIES)
PLACE_NAMES = list(PLACES)
OVERSAMPLING = 2


@dataclass(frozen=True)
class SceneObject:
    """An object of a scene: what it is and how it looks, and where it stands.

    Attributes:
        category: number in CATEGORY_NAMES.
        textures: by the name of the part.
        stretch: (2, 2) jitter of its shape, kept in all views of an instance.
        pose: (2, 3) from the object's square [-1, 1] to pixels.
    """

    category: int
    textures: dict[str, Texture]
    stretch: NDArray[np.float64]
    pose: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and all that is known about it. Objects are numbered from back to front.

    Attributes:
        image: (C, H, W) uint8.
        scene_class: number of the place in PLACE_NAMES.
        categories: (K,) category of each object.
        part_map: (H, W) long, 0 background, else 1 + the number of the visible part; parts are counted over all objects.
        part_objects: (parts,) the object that each part belongs to.
        part_labels: (category name, part name) of each part.
        objects: the objects as drawn.
    """

    image: Tensor
    scene_class: int
    categories: Tensor
    part_map: Tensor
    part_objects: Tensor
    part_labels: list[tuple[str, str]]
    objects: list[SceneObject] = field(repr=False)

    @cached_property
    def object_map(self) -> Tensor:
        """(H, W) long, 0 background, else 1 + the number of the visible object."""
        return torch.cat((torch.zeros(1, dtype=torch.long), 1 + self.part_objects))[self.part_map]

    @cached_property
    def instance_masks(self) -> Tensor:
        """(K, H, W) bool, the visible pixels of each object; no two overlap."""
        return self.object_map == torch.arange(1, len(self.categories) + 1).view(-1, 1, 1)

    @cached_property
    def boxes(self) -> Tensor:
        """(K, 4) float, left, top, right, bottom of each object's visible pixels; right and bottom are exclusive."""
        boxes = [[*m.any(0).nonzero().aminmax(), *m.any(1).nonzero().aminmax()] for m in self.instance_masks]
        left, right, top, bottom = torch.tensor(boxes, dtype=torch.float32).unbind(1)
        return torch.stack((left, top, right + 1, bottom + 1), dim=1)

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many objects of each category there are, those that are there."""
        return dict(Counter(CATEGORY_NAMES[category] for category in self.categories.tolist()))

    @cached_property
    def questions(self) -> list[Question]:
        """Yes/no, counting and open questions with their answers."""
        large = self.objects[int(self.instance_masks.flatten(1).sum(dim=1).argmax())]
        colours = {name: texture.name for name, texture in large.textures.items()}
        place = PLACE_NAMES[self.scene_class]
        return ask_about(self.counts, CATEGORY_NAMES, CATEGORY_NAMES[large.category], colours, place)


def draw_object(
    rng: np.random.Generator,
    category: int,
    size: tuple[int, int],
    radius: tuple[float, float],
    place: tuple[float, float],
) -> SceneObject:
    """A random object: radius as a share of the shorter side, place of its centre as a share of each side."""
    name = CATEGORY_NAMES[category]
    usual = [USUAL_PATTERNS[name] if rng.uniform() < USUAL_SHARE else None for _ in part_names(name)]
    textures = {
        part: draw_texture(rng, (2.5, 4.0), (0.35, 0.65), patterns)
        for part, patterns in zip(part_names(name), usual, strict=True)
    }
    stretch = np.diag(rng.uniform(0.8, 1.0, 2)) + np.array([[0, rng.uniform(-0.15, 0.15)], [0, 0]])
    return SceneObject(category, textures, stretch, draw_pose(rng, size, radius, place, turn=0.25))


def draw_pose(
    rng: np.random.Generator, size: tuple[int, int], radius: tuple[float, float], place: tuple[float, float], turn: float
) -> NDArray[np.float64]:
    """(2, 3) a random pose of an object, turned by at most `turn` radians; for the rest see `draw_object`."""
    height, width = size
    angle, scale = rng.uniform(-turn, turn), rng.uniform(*radius) * min(size)
    mirrored = rng.choice([-1.0, 1.0])
    sine, cosine = np.sin(angle), np.cos(angle)
    turned = scale * np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([mirrored, 1.0])
    centre = [[rng.uniform(*place) * width], [rng.uniform(*place) * height]]
    return np.concatenate((turned, centre), axis=1)


def render(
    objects: list[SceneObject], scene_class: int, size: tuple[int, int], channels: int, rng: np.random.Generator
) -> Scene:
    """Draw objects from back to front in a place, in random light. Objects that are wholly hidden are left out."""
    height, width = size
    canvas = _background(rng, PLACES[PLACE_NAMES[scene_class]], height * OVERSAMPLING, width * OVERSAMPLING)
    part_objects, part_labels, pixels_of = _lay_out(objects, size)
    for number, (_, part), (y, x) in zip(part_objects, part_labels, pixels_of, strict=True):
        thing = objects[number]
        canvas[y, x] = thing.textures[part].paint(*_in_square(thing, y, x))
    visible = _visible(pixels_of, size)

    light = _light(rng, *canvas.shape[:2])
    image = Image.fromarray((canvas * light).clip(0, 255).astype(np.uint8)).reduce(OVERSAMPLING)
    pixels = np.array(image.convert("L" if channels == 1 else "RGB")).reshape(height, width, channels)

    seen = _seen(visible, part_objects)
    kept_parts = [number for number, thing in enumerate(part_objects) if thing in seen]
    renumber = np.zeros(len(part_objects) + 1, dtype=np.int64)
    renumber[[number + 1 for number in kept_parts]] = np.arange(1, len(kept_parts) + 1)
    return Scene(
        image=torch.from_numpy(pixels).permute(2, 0, 1).contiguous(),
        scene_class=scene_class,
        categories=torch.tensor([objects[number].category for number in seen]),
        part_map=torch.from_numpy(renumber[visible]),
        part_objects=torch.tensor([seen.index(part_objects[number]) for number in kept_parts]),
        part_labels=[part_labels[number] for number in kept_parts],
        objects=[objects[number] for number in seen],
    )


def count_visible(objects: list[SceneObject], size: tuple[int, int]) -> dict[str, int]:
    """What `render(objects, ..., size, ...).counts` is, several times faster, since nothing is painted."""
    part_objects, _, pixels_of = _lay_out(objects, size)
    seen = _seen(_visible(pixels_of, size), part_objects)
    return dict(Counter(CATEGORY_NAMES[objects[number].category] for number in seen))


Pixels = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows and columns, finer than the image by OVERSAMPLING."""


def _lay_out(objects: list[SceneObject], size: tuple[int, int]) -> tuple[list[int], list[tuple[str, str]], list[Pixels]]:
    """Of each part, from back to front: its object's number, its category and name, and the pixels that it covers."""
    part_objects, part_labels, pixels_of = [], [], []
    for number, thing in enumerate(objects):
        name = CATEGORY_NAMES[thing.category]
        for part in CATEGORIES[name]:
            part_objects.append(number)
            part_labels.append((name, part.name))
            pixels_of.append(_covered(part.outline, thing, size))
    return part_objects, part_labels, pixels_of


def _visible(pixels_of: list[Pixels], size: tuple[int, int]) -> NDArray[np.int64]:
    """(H, W), 1 + the number of the part that is seen at each pixel of the image, 0 where there is none."""
    part_map = np.zeros((size[0] * OVERSAMPLING, size[1] * OVERSAMPLING), dtype=np.int64)
    for number, pixels in enumerate(pixels_of, start=1):
        part_map[pixels] = number
    return part_map[OVERSAMPLING // 2 :: OVERSAMPLING, OVERSAMPLING // 2 :: OVERSAMPLING]


def _seen(visible: NDArray[np.int64], part_objects: list[int]) -> list[int]:
    """The numbers of the objects of which a pixel is seen."""
    return np.unique(np.array(part_objects)[np.unique(visible[visible > 0]) - 1]).tolist()


def _to_pixels(thing: SceneObject) -> NDArray[np.float64]:
    """(2, 3) from the object's square to such pixels."""
    return OVERSAMPLING * np.concatenate((thing.pose[:, :2] @ thing.stretch, thing.pose[:, 2:]), axis=1)


def _covered(outline: NDArray[np.float64], thing: SceneObject, size: tuple[int, int]) -> Pixels:
    to_pixels = _to_pixels(thing)
    corners = outline @ to_pixels[:, :2].T + to_pixels[:, 2]
    rows, columns = size[0] * OVERSAMPLING, size[1] * OVERSAMPLING
    left, top = np.floor(corners.min(axis=0)).astype(int).clip(0, (columns, rows))
    right, bottom = np.ceil(corners.max(axis=0)).astype(int).clip(0, (columns, rows)) + 1
    right, bottom = min(right, columns), min(bottom, rows)
    if left >= right or top >= bottom:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    stencil = Image.new("1", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(stencil).polygon([tuple(corner) for corner in corners - (left, top)], fill=1)
    y, x = np.nonzero(np.asarray(stencil))
    return y + top, x + left


def _in_square(
    thing: SceneObject, y: NDArray[np.int64], x: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixels -> places in the object's square, x and y."""
    to_pixels = _to_pixels(thing)
    inside = np.linalg.inv(to_pixels[:, :2])
    offset_x, offset_y = x - to_pixels[0, 2], y - to_pixels[1, 2]
    u = inside[0, 0] * offset_x + inside[0, 1] * offset_y
    v = inside[1, 0] * offset_x + inside[1, 1] * offset_y
    return u, v


def _background(rng: np.random.Generator, place: Place, rows: int, columns: int) -> NDArray[np.float32]:
    """The two textures of a place, above and below a slanting horizon."""
    y, x = _places(rows, columns)
    patterns = (place.above, place.below)
    above, below = (draw_texture(rng, (3.0, 5.0), (0.3, 0.6), [pattern], vividness=0.4) for pattern in patterns)
    horizon, slope = rng.uniform(-0.3, 0.3), rng.uniform(-0.25, 0.25)
    is_above = y < horizon + slope * x
    canvas = np.empty((rows, columns, 3), dtype=np.float32)
    for texture, region in ((above, is_above), (below, ~is_above)):
        canvas[region] = texture.paint(x[region], y[region])
    return canvas


def _light(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float32]:
    """(rows, columns, 3) factor: brightness, a gradient across the image, and a tint."""
    y, x = _places(rows, columns)
    angle = rng.uniform(0, 2 * np.pi)
    gradient = rng.uniform(0.8, 1.1) * (1 + rng.uniform(0, 0.25) * (np.cos(angle) * x + np.sin(angle) * y))
    return gradient[..., None] * rng.uniform(0.9, 1.1, 3).astype(np.float32)


@cache
def _places(rows: int, columns: int) -> NDArray[np.float32]:
    """(2, rows, columns) y and x in [-1, 1]."""
    return np.mgrid[-1 : 1 : rows * 1j, -1 : 1 : columns * 1j].astype(np.float32)
