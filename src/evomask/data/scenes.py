"""`scenes`, the embedded data set: textured objects made of parts before textured backgrounds, with every kind of label.

A scene is a pure function of (seed, split, index) and needs no file. Its class is a place (a street, a lake): what the
background is made of above and below, and which objects are usually found there, one of them large, some small. Colours, sizes,
directions and light are drawn without regard to all that, so neither colours nor layout give class or category away: they have
to be told by texture, by shape, and by how parts lie to each other.
"""

import numpy as np
from torch import Tensor

from evomask.data.scene_drawing import (
    CATEGORY_NAMES,
    PLACE_NAMES,
    Scene,
    SceneObject,
    count_visible,
    draw_object,
    draw_pose,
    render,
)
from evomask.data.scene_objects import PLACES

SPLITS = ("train", "val")


class Scenes:
    """The data set; an `ImageSource` whose classes are the places.

    Args:
        size: height and width in pixels, at least 32, or one number for both.
        count: how many scenes.
        seed: another seed is another data set.
        split: "train" or "val"; no scene is in both.
        channels: 1 grey, 3 RGB.

    Raises:
        ValueError: a size, count, split or number of channels that cannot be.
    """

    def __init__(self, size: int | tuple[int, int], count: int, seed: int = 0, split: str = "train", channels: int = 3):
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
        self._size, self._channels = _check_size(size, count, channels), channels
        self._count, self._key = count, (seed, SPLITS.index(split))
        self._name = f"scenes/{split}"
        self.classes = list(PLACE_NAMES)

    def __len__(self) -> int:
        """The number of scenes."""
        return self._count

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8."""
        return self.scene(index).image

    def label(self, index: int) -> int:
        """The scene's class."""
        return self._class_of(self._generator(index))

    def name(self, index: int) -> str:
        """A name for logs."""
        return f"{self._name}/{index}"

    def scene(self, index: int) -> Scene:
        """The image and all its labels; the labels are worked out when asked for."""
        rng = self._generator(index)
        objects, scene_class = self._compose(rng)
        return render(objects, scene_class, self._size, self._channels, rng)

    def counts(self, index: int) -> dict[str, int]:
        """How many objects of each category there are in a scene, several times faster than `scene(index).counts`."""
        objects, _ = self._compose(self._generator(index))
        return count_visible(objects, self._size)

    def _compose(self, rng: np.random.Generator) -> tuple[list[SceneObject], int]:
        """Objects from back to front, and the class."""
        scene_class = self._class_of(rng)
        usual = [CATEGORY_NAMES.index(name) for name in PLACES[PLACE_NAMES[scene_class]].objects]
        others = rng.integers(len(CATEGORY_NAMES), size=rng.integers(0, 3))
        height, width = self._size
        small = [draw_object(rng, int(category), self._size, (0.12, 0.17), (0.1, 0.9)) for category in others]
        large = draw_object(rng, int(rng.choice(usual)), self._size, (0.36, 0.46), (0.42, 0.58))
        # The large one may stand anywhere in the stack, but for the few behind it nothing may hide it.
        front = [thing for thing in small if not _overlaps(thing, large, min(height, width))]
        back = [thing for thing in small if _overlaps(thing, large, min(height, width))]
        return [*back, large, *front], scene_class

    def _generator(self, index: int) -> np.random.Generator:
        if not 0 <= index < self._count:
            raise IndexError(f"scene {index} of {self._count}")
        return np.random.default_rng((*self._key, index))

    @staticmethod
    def _class_of(rng: np.random.Generator) -> int:
        return int(rng.integers(len(PLACE_NAMES)))


class SceneInstances:
    """Views of the same few objects, for retrieval: viewpoint, light and background change, the object does not.

    An `ImageSource` whose label is the instance. Instances of one category differ in textures and proportions only.

    Args:
        size: height and width in pixels, at least 32, or one number for both.
        instances: how many objects.
        views: images of each.
        seed: another seed is another data set.
        channels: 1 grey, 3 RGB.
    """

    def __init__(self, size: int | tuple[int, int], instances: int, views: int, seed: int = 0, channels: int = 3):
        self._size, self._channels = _check_size(size, instances * views, channels), channels
        self._instances, self._views, self._seed = instances, views, seed
        self.classes = [f"{CATEGORY_NAMES[i % len(CATEGORY_NAMES)]} {i // len(CATEGORY_NAMES)}" for i in range(instances)]

    def __len__(self) -> int:
        """Instances times views."""
        return self._instances * self._views

    def image(self, index: int) -> Tensor:
        """(C, H, W) uint8."""
        return self.scene(index).image

    def label(self, index: int) -> int:
        """The instance's number."""
        return index // self._views

    def name(self, index: int) -> str:
        """A name for logs."""
        return f"scenes/instance {index // self._views}/view {index % self._views}"

    def scene(self, index: int) -> Scene:
        """The view and all its labels."""
        if not 0 <= index < len(self):
            raise IndexError(f"view {index} of {len(self)}")
        instance, view = divmod(index, self._views)
        category = instance % len(CATEGORY_NAMES)
        looks = draw_object(np.random.default_rng((self._seed, 2, instance)), category, self._size, (0.3, 0.3), (0.5, 0.5))
        rng = np.random.default_rng((self._seed, 3, instance, view))
        pose = draw_pose(rng, self._size, (0.28, 0.45), (0.38, 0.62), turn=0.6)
        thing = SceneObject(category, looks.textures, looks.stretch, pose)
        return render([thing], int(rng.integers(len(PLACE_NAMES))), self._size, self._channels, rng)


def _overlaps(one: SceneObject, other: SceneObject, side: int) -> bool:
    """Whether an object comes near enough to the middle of another to hide what it is."""
    return bool(np.linalg.norm(one.pose[:, 2] - other.pose[:, 2]) < 0.45 * side)


def _check_size(size: int | tuple[int, int], count: int, channels: int) -> tuple[int, int]:
    size = (size, size) if isinstance(size, int) else size
    if min(size) < 32:
        raise ValueError(f"scenes are drawn at 32 px and more, not at {size[0]} x {size[1]}")
    if count < 1:
        raise ValueError(f"a data set has at least 1 image, not {count}")
    if channels not in (1, 3):
        raise ValueError(f"scenes have 1 (grey) or 3 (RGB) channels, not {channels}: set in_chans to 1 or 3")
    return size
