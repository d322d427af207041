"""Counting and identification rows, from scenes and from COCO's json, with answers that a name does not give away."""

import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evomask.data.object_questions import (
    Objects,
    coco_objects,
    counting_questions,
    identification_questions,
    plural,
    scene_objects,
)
from evomask.data.scenes import Scenes


def objects(*counts: dict[str, int]) -> Objects:
    names = sorted({name for each in counts for name in each})
    return Objects(Scenes(32, len(counts)), counts, [frozenset()] * len(counts), names)


def test_every_count_from_1_to_9_is_asked_for() -> None:
    questions = counting_questions(objects({"dog": 2, "person": 9}, {"dog": 10}, {}), balanced=False, seed=0)
    asked = list(zip(questions.image_of.tolist(), questions.texts, questions.answers, strict=True))
    assert asked == [
        (0, "How many dogs are there in the image?", ("2",)),
        (0, "How many people are there in the image?", ("9",)),
    ]


def test_no_count_of_a_thing_outweighs_its_others() -> None:
    counts = [{"dog": 1, "cat": 1}] * 9 + [{"dog": 2}, {"dog": 3}, {"dog": 3}]
    questions = counting_questions(objects(*counts), balanced=True, seed=0)
    assert Counter(questions.answers) == {("1",): 3, ("2",): 1, ("3",): 2}
    assert not any("cat" in text for text in questions.texts), "cats always come alone"
    again = counting_questions(objects(*counts), balanced=True, seed=0)
    assert (again.image_of == questions.image_of).all()
    with pytest.raises(ValueError, match=r"nothing is left to ask .* counts differ; --balanced False"):
        counting_questions(objects({"cat": 1}, {"cat": 1}), balanced=True, seed=0)


def test_a_thing_is_there_as_often_as_not() -> None:
    things = objects({"dog": 1}, {"dog": 2, "cat": 1}, {"dog": 1}, {"cat": 3}, {})
    questions = identification_questions(things, balanced=True, seed=0)
    by_text: dict[str, list[str]] = defaultdict(list)
    for image, text, (answer,) in zip(questions.image_of, questions.texts, questions.answers, strict=True):
        name = text.split()[1]
        assert (name in things.counts[image]) is (answer == "yes")
        by_text[text].append(answer)
    assert {text: sorted(answers) for text, answers in by_text.items()} == {
        "Does cat exist in the image?": ["no", "no", "yes", "yes"],
        "Does dog exist in the image?": ["no", "no", "yes", "yes"],
    }
    assert len(identification_questions(things, balanced=False, seed=0)) == 5 * 2
    with pytest.raises(ValueError, match="nothing is left to ask"):
        identification_questions(objects({"cat": 1}, {"cat": 2}), balanced=True, seed=0)


def test_scenes_are_counted() -> None:
    scenes = Scenes(32, 4)
    assert list(scene_objects(scenes).counts) == [scenes.scene(number).counts for number in range(4)]


def test_plurals() -> None:
    assert [
        plural(name) for name in ("dog", "bus", "bench", "toothbrush", "wine glass", "box", "person", "mouse", "knife")
    ] == [*("dogs", "buses", "benches", "toothbrushes", "wine glasses", "boxes", "people", "mice", "knives")]
    assert [plural(name) for name in ("sheep", "skis", "scissors", "tie", "sandwich")] == [
        *("sheep", "skis", "scissors", "ties", "sandwiches")
    ]


@pytest.fixture
def coco(tmp_path: Path) -> tuple[Path, dict]:
    """Boxes alone; ids with gaps, a crowd, and an image with nothing in it."""
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    of = [(9, 3, 0), (9, 3, 0), (9, 90, 0), (12, 3, 1), (12, 90, 0)]
    record = {
        "categories": [{"id": 3, "name": "car"}, {"id": 90, "name": "toothbrush"}],
        "images": [{"id": 9, "file_name": "a.jpg"}, {"id": 12, "file_name": "b.jpg"}, {"id": 4, "file_name": "c.jpg"}],
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": [0, 0, 2, 2], "iscrowd": crowd}
            for n, (image, category, crowd) in enumerate(of)
        ],
    }
    return tmp_path, record


def test_coco_needs_boxes_alone_and_crowds_are_there_but_not_counted(coco: tuple[Path, dict]) -> None:
    folder, record = coco
    (folder / "some.json").write_text(json.dumps(record))
    found = coco_objects(folder / "some.json", folder / "images")
    assert [dict(counts) for counts in found.counts] == [{"car": 2, "toothbrush": 1}, {"toothbrush": 1}, {}]
    counted = counting_questions(found, balanced=False, seed=0)
    assert list(counted.answers) == [("2",), ("1",), ("1",)]
    identified = identification_questions(found, balanced=False, seed=0)
    answer_of = {
        (int(image), text.split()[1]): answer[0]
        for image, text, answer in zip(identified.image_of, identified.texts, identified.answers, strict=True)
    }
    assert answer_of[1, "car"] == "yes" and answer_of[2, "car"] == "no"


def test_what_is_wrong_with_a_coco_file_is_named(coco: tuple[Path, dict]) -> None:
    folder, record = coco

    def error(**changed) -> str:
        (folder / "bad.json").write_text(json.dumps(record | changed))
        with pytest.raises(ValueError, match=r"bad\.json") as caught:
            coco_objects(folder / "bad.json", folder / "images")
        return str(caught.value)

    assert "annotations 0 is of image 5, which is not in the file" in error(annotations=[{"image_id": 5, "category_id": 3}])
    assert "annotations 0 is of category 5" in error(annotations=[{"image_id": 9, "category_id": 5}])
    assert "has no list of categories" in error(categories=None)
    assert "images 0 is no object" in error(images=["a.jpg"])
    assert "1 of 4 images of" in error(images=[*record["images"], {"id": 1, "file_name": "gone.jpg"}])


def test_coco_images(shared_data: Path) -> None:
    folder = shared_data / "coco"
    found = coco_objects(folder / "annotations" / "instances_val2017.json", folder / "val2017")
    assert len(found.counts) == 100 and sum(sum(each.values()) for each in found.counts) <= 710
    questions = identification_questions(found, balanced=True, seed=0)
    assert Counter(questions.answers)["yes",] == Counter(questions.answers)["no",]
    assert np.unique(questions.image_of).max() < 100
