"""Questions about scenes, of VQAv2's files and of GVTBench's."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from evomask.data.gvtbench import read_gvtbench
from evomask.data.question_images import QuestionCrops, WholeQuestionImages
from evomask.data.questions import Questions, scene_questions
from evomask.data.scenes import Scenes
from evomask.data.vqa_files import read_annotations, read_vqa


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def picture(path: Path, red: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 6), (red, 0, 0)).save(path)


@pytest.fixture
def vqa(tmp_path: Path) -> dict[str, Path]:
    for number in (7, 12):
        picture(tmp_path / f"images/COCO_val2014_{number:012}.png", red=number)
    picture(tmp_path / "images/more.png")
    asked = [
        {"question_id": 120, "image_id": 12, "question": "how many?"},
        {"question_id": 70, "image_id": 7, "question": "cat?"},
    ]
    answered = [
        {"question_id": 70, "answer_type": "yes/no", "answers": [{"answer": "no"}]},
        {"question_id": 120, "answer_type": "number", "answers": [{"answer": each} for each in ("2", "3", "3")]},
    ]
    return {
        "questions": write(tmp_path / "questions.json", {"questions": asked}),
        "annotations": write(tmp_path / "annotations.json", {"annotations": answered}),
        "images": tmp_path / "images",
    }


def test_vqa_files_are_brought_together_by_their_numbers(vqa: dict[str, Path]) -> None:
    questions = read_vqa(**vqa)
    assert list(questions.texts) == ["how many?", "cat?"]
    assert list(questions.answers) == [("2", "3", "3"), ("no",)]
    assert questions.answer(0) == "3" and list(questions.kinds) == ["number", "yes/no"]
    assert [int(questions.images.image(int(image))[0, 0, 0]) for image in questions.image_of] == [12, 7]


def test_what_is_wrong_with_vqa_files_is_named(vqa: dict[str, Path], tmp_path: Path) -> None:
    def error(**changed: Path) -> str:
        with pytest.raises(ValueError, match=str(tmp_path)) as caught:
            read_vqa(**(vqa | changed))
        return str(caught.value)

    assert "there is no file" in error(questions=tmp_path / "none.json")
    assert "bad.json cannot be read as VQAv2's json file of questions" in error(questions=write(tmp_path / "bad.json", "{"))
    assert "it has no list of questions" in error(questions=vqa["annotations"])
    assert "1 of 2 questions of" in error(
        annotations=write(tmp_path / "less.json", {"annotations": [{"question_id": 70, "answers": [{"answer": "no"}]}]})
    )
    none = write(tmp_path / "none.json", {"annotations": [{"question_id": 70, "answers": []}]})
    assert "none.json: annotations 0 has no answer to question 70" in error(annotations=none)
    lacks = write(tmp_path / "lacks.json", {"questions": [{"question_id": 70, "question": "cat?"}]})
    assert "lacks.json: questions 0 has no 'image_id'" in error(questions=lacks)
    assert "holds nothing under questions" in error(questions=write(tmp_path / "empty.json", {"questions": []}))
    assert "there is no folder" in error(images=tmp_path / "gone")
    (vqa["images"] / "COCO_val2014_000000000007.png").rename(vqa["images"] / "8.png")
    assert "1 of 2 images of" in (message := error()) and "7 for one" in message
    picture(vqa["images"] / "012.png")
    assert "two images of one number, 012.png and COCO_val2014_000000000012.png" in error()


def test_the_official_sample_files(shared_data: Path) -> None:
    read = read_annotations(shared_data / "vqav2-sample" / "v2_mscoco_val2014_annotations.json")
    assert len(read) == 100
    assert read[262148000] == (
        ("down", "down", "at table", "skateboard", "down", "table", "down", "down", "down", "down"),
        "other",
    )


def test_gvtbench_rows_of_coco_and_of_vcr(tmp_path: Path) -> None:
    picture(tmp_path / "val2017/000000000042.jpg")
    picture(tmp_path / "vcr1images/movie/clip@3.jpg")
    row = {"text_in": "Does cup exist in the image?", "text_out": "Yes.", "n_obj_exist": 3}
    coco = write(tmp_path / "coco_mci.json", [row | {"image_id": 42}])
    questions = read_gvtbench(coco, tmp_path / "val2017")
    assert (list(questions.texts), list(questions.answers)) == (["Does cup exist in the image?"], [("yes",)])
    leak = {"image_id": "movie/clip@3.jpg", "text_in": "Does cups exis in the image?", "text_out": "No."}
    vcr = write(tmp_path / "vcr_mci.json", [leak])
    assert read_gvtbench(vcr, tmp_path / "vcr1images").texts == ["Does cups exist in the image?"]
    assert read_gvtbench(vcr, tmp_path / "vcr1images", as_published=True).texts == ["Does cups exis in the image?"]
    with pytest.raises(ValueError, match=r"1 of 1 images of .* are not in .*: movie/clip@3.jpg for one"):
        read_gvtbench(vcr, tmp_path / "val2017")
    with pytest.raises(ValueError, match=r"row 0 has no answer in text_out"):
        read_gvtbench(write(tmp_path / "none.json", [leak | {"text_out": ""}]), tmp_path / "vcr1images")


def test_questions_about_scenes_are_those_of_each_scene() -> None:
    scenes = Scenes(32, 3)
    questions = scene_questions(scenes)
    assert len(questions) == sum(len(scenes.scene(number).questions) for number in range(3))
    last = scenes.scene(2).questions[-1]
    assert (questions.texts[-1], questions.answers[-1], questions.kinds[-1]) == (last.text, (last.answer,), last.kind)
    assert questions.image_of[-1] == 2


def few(images: int = 4, each: int = 3) -> Questions:
    count = images * each
    return Questions(
        Scenes(32, images),
        np.arange(count) // each,
        [f"{n}?" for n in range(count)],
        [(str(n),) for n in range(count)],
        [""] * count,
    )


def test_shuffled_images_are_never_the_right_ones_and_stay_together() -> None:
    questions = few()
    shuffled = questions.with_shuffled_images(seed=3)
    assert (shuffled.image_of != questions.image_of).all()
    assert shuffled.image_of.reshape(4, 3).std(axis=1).max() == 0, "questions about one image are asked about one other"
    assert sorted(set(shuffled.image_of.tolist())) == [0, 1, 2, 3]
    assert (few().with_shuffled_images(seed=3).image_of == shuffled.image_of).all()
    assert shuffled.texts == questions.texts
    with pytest.raises(ValueError, match="--shuffled False"):
        few(images=1).with_shuffled_images(0)


def test_some_are_from_all_over() -> None:
    assert few().some(None).texts == few().texts == few().some(99).texts
    some = few().some(3)
    assert (some.texts, some.answers, some.image_of.tolist()) == (["0?", "4?", "8?"], [("0",), ("4",), ("8",)], [0, 1, 2])


def test_images_of_questions_to_train_on_and_to_judge(tmp_path: Path) -> None:
    crops = QuestionCrops(few(), (16, 24), 3, seed=1)
    image, index = crops[0, 5]
    assert image.shape == (3, 16, 24) and index == 5 and len(crops) == 12
    assert crops[0, 5][0].equal(image) and not crops[1, 5][0].equal(image)
    whole, index = WholeQuestionImages(few(), (16, 24))[5]
    assert whole.shape == (3, 16, 24) and index == 5
    with pytest.raises(ValueError, match="--crop-scale is a range"):
        QuestionCrops(few(), (16, 24), 3, seed=1, scale=(0.0, 1.0))


class Panorama:
    """One image that is four times as wide as high."""

    def image(self, index: int) -> Tensor:
        return torch.arange(40, dtype=torch.uint8).expand(3, 10, 40)


def test_the_whole_area_is_all_of_a_panorama() -> None:
    questions = replace(few(images=1), images=Panorama())  # type: ignore[arg-type]
    uncut, _ = QuestionCrops(questions, (8, 8), 3, seed=1, scale=(1.0, 1.0), flip=False)[0, 0]
    assert torch.equal(uncut, WholeQuestionImages(questions, (8, 8))[0][0])
    assert uncut.min() < 5 and uncut.max() > 34, "nothing is cut off at its sides"


def test_another_question_takes_the_place_of_one_whose_image_is_broken(vqa: dict[str, Path]) -> None:
    (vqa["images"] / "COCO_val2014_000000000012.png").write_text("no picture")
    questions = read_vqa(**vqa)
    image, index = QuestionCrops(questions, (8, 8), 3, seed=0)[0, 0]
    assert index == 1 and int(image[0, 0, 0]) == 7, "it is question 1 that is to be asked"
    with pytest.raises(ValueError, match=r"COCO_val2014_000000000012\.png cannot be read"):
        WholeQuestionImages(questions, (8, 8))[0]
