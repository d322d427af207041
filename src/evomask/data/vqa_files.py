"""Questions and annotations in VQAv2's layout (Goyal et al., 2017): two json files, and a folder of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evomask.data.image_files import files_of
from evomask.data.images import DecodedImages
from evomask.data.json_rows import read_json, rows_of
from evomask.data.questions import Questions

_QUESTIONS = "VQAv2's json file of questions"
_ANNOTATIONS = "VQAv2's json file of annotations"


def read_annotations(file: Path) -> dict[int, tuple[tuple[str, ...], str]]:
    """By the question's id, the answer of each annotator and the kind of answer (yes/no, number, other).

    Raises:
        ValueError: it is no such file, or a question has no answer.
    """

    def read(row: Mapping[str, Any]) -> tuple[int, tuple[tuple[str, ...], str]]:
        answers = tuple(str(each["answer"]) for each in row["answers"])
        if not answers:
            raise ValueError(f"has no answer to question {row['question_id']}")
        return int(row["question_id"]), (answers, str(row.get("answer_type", "")))

    return dict(rows_of(file, _ANNOTATIONS, read_json(file, _ANNOTATIONS), read, "annotations"))


def read_vqa(questions: Path, annotations: Path, images: Path, channels: int = 3) -> Questions:
    """The questions of one file with the answers of the other, in the order of the questions.

    Args:
        questions: v2_OpenEnded_mscoco_train2014_questions.json, for example.
        annotations: v2_mscoco_train2014_annotations.json, for example; of all questions.
        images: the folder, in which a file's name ends in its image's number: COCO_train2014_000000000009.jpg, 9.png.
        channels: of an image.

    Raises:
        ValueError: a file cannot be read, a question has no answer, or an image is missing.
    """
    asked = rows_of(
        questions,
        _QUESTIONS,
        read_json(questions, _QUESTIONS),
        lambda row: (int(row["question_id"]), int(row["image_id"]), str(row["question"])),
        "questions",
    )
    answered = read_annotations(annotations)
    without = [question for question, _, _ in asked if question not in answered]
    if without:
        raise ValueError(
            f"{len(without)} of {len(asked)} questions of {questions} have no answer in {annotations}: {without[0]} for one"
        )
    ids = sorted({image for _, image, _ in asked})
    number_of = {id_: number for number, id_ in enumerate(ids)}
    return Questions(
        images=DecodedImages(files_of(ids, images, questions), channels),
        image_of=np.array([number_of[image] for _, image, _ in asked]),
        texts=[text for _, _, text in asked],
        answers=[answered[question][0] for question, _, _ in asked],
        kinds=[answered[question][1] for question, _, _ in asked],
    )
