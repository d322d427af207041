import subprocess
import sys
from collections import Counter

import pytest
import torch

from evomask.data.scene_drawing import CATEGORY_NAMES
from evomask.data.scene_objects import CATEGORIES, COLOURS, PATTERNS, PLACES
from evomask.data.scenes import SceneInstances, Scenes

SCENES = Scenes(64, 60)


def test_a_scene_is_a_function_of_seed_split_and_index():
    again = Scenes(64, 100)
    assert torch.equal(SCENES.image(7), again.image(7))
    others = [SCENES.image(8), Scenes(64, 60, seed=1).image(7), Scenes(64, 60, split="val").image(7)]
    assert all(not torch.equal(SCENES.image(7), other) for other in others)


def test_another_process_draws_the_same_scene():
    code = "from evomask.data.scenes import Scenes; print(Scenes(64, 9).image(5).long().sum().item())"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == SCENES.image(5).long().sum().item()


def test_no_global_random_state_is_touched():
    before = torch.get_rng_state()
    SCENES.image(3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("size", "channels"), [((48, 80), 3), (32, 1), ((96, 64), 1)])
def test_sizes_and_channels(size, channels):
    scene = Scenes(size, 4, channels=channels).scene(2)
    height, width = (size, size) if isinstance(size, int) else size
    assert scene.image.shape == (channels, height, width)
    assert scene.image.dtype == torch.uint8
    assert scene.part_map.shape == scene.object_map.shape == (height, width)


@pytest.mark.parametrize("index", range(12))
def test_labels_agree_with_each_other(index):
    scene = SCENES.scene(index)
    objects = len(scene.categories)
    assert scene.scene_class == SCENES.label(index)
    assert scene.counts == Counter(CATEGORY_NAMES[c] for c in scene.categories.tolist())

    masks = scene.instance_masks
    assert masks.shape == (objects, 64, 64)
    assert masks.sum(dim=0).max() <= 1
    assert masks.flatten(1).any(dim=1).all()
    for mask, (left, top, right, bottom) in zip(masks, scene.boxes.int().tolist(), strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)

    owner = scene.part_objects
    assert scene.part_map.max() <= len(owner) == len(scene.part_labels)
    for number in range(objects):
        parts = 1 + (owner == number).nonzero().flatten()
        assert torch.equal(torch.isin(scene.part_map, parts), masks[number])
        category = CATEGORY_NAMES[int(scene.categories[number])]
        names = [label for label, thing in zip(scene.part_labels, owner.tolist(), strict=True) if thing == number]
        assert names == [(category, part.name) for part in CATEGORIES[category]]


@pytest.mark.parametrize("index", range(6))
def test_answers_follow_from_the_labels(index):
    scene = SCENES.scene(index)
    asked = {question.text: question.answer for question in scene.questions}
    for name in CATEGORY_NAMES:
        assert asked[f"Does {name} exist in the image?"] == ("yes" if name in scene.counts else "no")
    for name, number in scene.counts.items():
        assert asked[f"How many {name} are there in the image?"] == str(number)
    assert asked["What place is this?"] == SCENES.classes[scene.scene_class]
    areas = scene.instance_masks.flatten(1).sum(dim=1)
    assert asked["What is the largest object in the image?"] == CATEGORY_NAMES[int(scene.categories[areas.argmax()])]
    colours = {answer for text, answer in asked.items() if text.startswith("What colour")}
    assert colours <= set(COLOURS)
    assert {question.kind for question in scene.questions} == {"exists", "count", "open"}


def test_things_are_counted_without_painting_as_they_are_with():
    scenes = Scenes((32, 48), 60)
    assert [scenes.counts(index) for index in range(60)] == [scenes.scene(index).counts for index in range(60)]
    assert any(scenes.counts(index) != dict(Counter(drawn(scenes, index))) for index in range(60)), "something is hidden"


def drawn(scenes, index):
    objects, _ = scenes._compose(scenes._generator(index))
    return [CATEGORY_NAMES[thing.category] for thing in objects]


def test_a_large_object_that_is_usual_in_the_place_is_seen():
    for index in range(40):
        scene = SCENES.scene(index)
        areas = scene.instance_masks.flatten(1).sum(dim=1)
        usual = PLACES[SCENES.classes[scene.scene_class]].objects
        assert CATEGORY_NAMES[int(scene.categories[areas.argmax()])] in usual
        assert areas.max() > 0.04 * 64 * 64


def test_no_pattern_and_no_object_gives_the_place_away():
    patterns = Counter(pattern for place in PLACES.values() for pattern in (place.above, place.below))
    objects = Counter(name for place in PLACES.values() for name in place.objects)
    assert set(patterns) == set(PATTERNS)
    assert set(objects) == set(CATEGORIES)
    assert min([*patterns.values(), *objects.values()]) > 1


def test_all_classes_come_up():
    counts = Counter(Scenes(64, 1000).label(i) for i in range(1000))
    assert sorted(counts) == list(range(len(CATEGORY_NAMES)))
    assert min(counts.values()) > 60


def test_views_of_an_instance_share_its_looks_and_nothing_else():
    data = SceneInstances(64, instances=12, views=3)
    assert len(data) == 36
    assert [data.label(i) for i in (0, 2, 3, 35)] == [0, 0, 1, 11]
    one, other, stranger = (data.scene(i).objects[0] for i in (0, 1, 30))
    assert {n: t.name for n, t in one.textures.items()} == {n: t.name for n, t in other.textures.items()}
    assert (one.stretch == other.stretch).all()
    assert (one.pose != other.pose).any()
    assert one.category == stranger.category  # 10 categories: instance 10 is of the category of instance 0
    assert any((one.textures[n].colours != stranger.textures[n].colours).any() for n in one.textures)
    assert not torch.equal(data.image(0), data.image(1))
    assert len(data.classes) == 12


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="32 px"):
        Scenes(16, 4)
    with pytest.raises(ValueError, match="at least 1"):
        Scenes(64, 0)
    with pytest.raises(ValueError, match="train, val"):
        Scenes(64, 4, split="test")
    with pytest.raises(ValueError, match="in_chans to 1 or 3"):
        Scenes(64, 4, channels=4)
    with pytest.raises(IndexError):
        Scenes(64, 4).image(4)
