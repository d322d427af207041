"""Metrics against cases worked by hand, and VQA's against a naive reading of GVT's rules on the official sample files."""

import json
import random
import re
from pathlib import Path

import numpy as np
import pytest

from evomask.data.questions import Questions
from evomask.data.scenes import Scenes
from evomask.data.vqa_files import read_annotations
from evomask.tasks.answer_text import as_words, first_sentence, published_sentence, with_digits, without_punctuation
from evomask.tasks.answers import (
    compared,
    counting_accuracy,
    identification_accuracy,
    majority,
    published_count,
    question_majority,
    strict_count,
    vqa_accuracy,
    yes_or_no,
)


def asked(answers: list[tuple[str, ...]], texts: list[str] | None = None, kinds: list[str] | None = None) -> Questions:
    count = len(answers)
    texts = texts or [f"question {number}?" for number in range(count)]
    return Questions(Scenes(32, count), np.arange(count), texts, answers, kinds or [""] * count)


def ten(*pairs: tuple[str, int]) -> tuple[str, ...]:
    return tuple(answer for answer, count in pairs for _ in range(count))


@pytest.mark.parametrize(
    ("said", "answers", "faithful", "strict", "exact"),
    [
        ("net", ten(("net", 7), ("mesh", 3)), 100, 100, 100),
        ("mesh", ten(("net", 7), ("mesh", 3)), 90, 90, 90),  # left out, one of the three leaves two: 2/3, thrice; else 1
        ("mesh", ten(("net", 8), ("mesh", 2)), 60, 60, 60),  # 1/3 twice, 2/3 eight times
        ("mesh", ten(("net", 9), ("mesh", 1)), 30, 30, 30),
        ("cup", ten(("net", 10)), 0, 0, 0),
        ("It is a net. Or not?", ten(("net", 10)), 100, 100, 0),  # the first sentence holds it, and it is not all that was said
        ("A cup. A net.", ten(("net", 10)), 0, 0, 0),
        ("two", ten(("2", 10)), 100, 100, 100),
        ("2", ten(("two", 10)), 0, 100, 100),  # GVT turns words into digits on one side alone
        ("nine", ten(("9", 10)), 100, 100, 100),
        ("not sure", ten(("no", 10)), 100, 0, 0),  # letters of "not"
        ("I do not know", ten(("no", 10)), 100, 0, 0),
        ("no", ten(("no", 10)), 100, 100, 100),
        ("", ten(("no", 10)), 0, 0, 0),
        ("cup", ten(("", 4), ("no", 6)), 100, 0, 0),  # nothing is in everything
        ("", ten(("", 10)), 100, 0, 0),
        ("The T-shirt, I think", ten(("t shirt", 10)), 100, 100, 0),
        ("T-shirt", ten(("t shirt", 5), ("T-shirt", 5)), 100, 100, 100),
        ("1,000", ten(("1000", 10)), 100, 100, 100),
        ("dont walk", ten(("don't walk", 10)), 100, 100, 100),
        (". yes", ten(("yes", 10)), 100, 100, 100),
        ("yes\nno", ten(("no", 10)), 0, 0, 0),
        ("a net", ("net",), 100, 100, 100),  # a single annotator is compared itself
        ("mesh", ("net", "mesh"), 50, 50, 50),
    ],
)
def test_vqa_by_hand(said: str, answers: tuple[str, ...], faithful: float, strict: float, exact: float) -> None:
    metrics = vqa_accuracy([said], asked([answers]))
    assert metrics == pytest.approx({"faithful": faithful, "strict": strict, "exact": exact}, abs=1e-3)


def test_vqa_is_the_mean_over_questions_and_over_those_of_each_kind() -> None:
    questions = asked([("yes",), ("no",), ("2",)], kinds=["yes/no", "yes/no", "number"])
    metrics = vqa_accuracy(["yes", "yes", "two"], questions)
    assert metrics["strict"] == pytest.approx(200 / 3, abs=1e-3)
    assert metrics["strict_yes_no"] == 50 and metrics["strict_number"] == 100


def naive_faithful(said: str, answers: list[dict]) -> float:
    """GVT's evaluation read once more from its description, step by step, for text without rare contractions."""
    numbers = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
    numbers |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}

    def punctuation(text: str) -> str:
        has_comma_in_number = bool(re.search(r"\d,\d", text))
        result = text
        for sign in ';/[]"{}()=+\\_-><@`,?!':
            if (sign + " ") in text or (" " + sign) in text or has_comma_in_number:
                result = "".join(result.split(sign))
            else:
                result = " ".join(result.split(sign))
        characters = list(result)
        kept = [c for i, c in enumerate(characters) if c != "." or (i + 1 < len(characters) and characters[i + 1].isdigit())]
        return "".join(kept)

    text = said.strip().partition("\n")[0].strip("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
    text = text.partition(".")[0].strip()
    text = punctuation((text + "." if text else "").lower())
    words = [numbers.get(word, word) for word in text.split()]
    text = " ".join(word for word in words if word not in {"a", "an", "the"})
    given = [answer["answer"] for answer in answers]
    if len(set(given)) > 1:
        given = [punctuation(each) for each in given]
    accuracies = []
    for left_out in range(len(given)):
        others = given[:left_out] + given[left_out + 1 :]
        accuracies.append(min(1, sum(other.lower() in text for other in others) / 3))
    return 100 * sum(accuracies) / len(accuracies)


@pytest.mark.parametrize("split", ["train", "val"])
def test_vqa_equals_a_naive_reading_on_the_official_files(shared_data: Path, split: str) -> None:
    file = shared_data / "vqav2-sample" / f"v2_mscoco_{split}2014_annotations.json"
    rows = json.loads(file.read_text())["annotations"]
    read = read_annotations(file)
    questions = asked([read[row["question_id"]][0] for row in rows], kinds=[read[row["question_id"]][1] for row in rows])
    assert {len(answers) for answers in questions.answers} == {10}
    every = [answer["answer"] for row in rows for answer in row["answers"]]
    rng = random.Random(0)
    own = [rng.choice(row["answers"])["answer"] for row in rows]
    for said in (
        own,
        rng.sample(every, len(rows)),
        [f"The answer is {answer}, I think. Or {rng.choice(every)}." for answer in own],
        [f"{rng.choice(every)} and not {answer}\nno" for answer in own],
        ["" if rng.random() < 0.5 else answer.upper() for answer in own],
    ):
        expected = [naive_faithful(text, row["answers"]) for text, row in zip(said, rows, strict=True)]
        assert vqa_accuracy(said, questions)["faithful"] == pytest.approx(sum(expected) / len(expected), abs=1e-3)
    scores = vqa_accuracy([row["multiple_choice_answer"] for row in rows], questions)
    assert scores["strict"] >= scores["exact"] > 60
    assert {name for name in scores if name.startswith("strict_")} == {"strict_yes_no", "strict_number", "strict_other"}


def test_sentences() -> None:
    assert published_sentence("1.5 cups. Two") == "1."
    assert first_sentence("1.5 cups. Two") == "1.5 cups"
    assert published_sentence("\n .Yes it is") == "Yes it is."
    assert first_sentence("\n .Yes it is\nno") == "Yes it is"
    assert published_sentence(" ") == first_sentence(" ") == ""
    assert published_sentence("yes\nno") == "yesno."


def test_forms_of_words() -> None:
    assert without_punctuation("a/b") == "a b" and without_punctuation("a /b-c /") == "a b c "
    assert without_punctuation("at 5.30.") == "at 5.30"
    assert with_digits("None of the ten dogs cant") == "0 of 10 dogs can't"
    assert with_digits("couldnt've somebodyd've twas yall'd've") == "couldn't've somebody'd've 'twas y'all'd've"
    assert as_words(" The Cat! ") == "cat"


@pytest.mark.parametrize(
    ("said", "published", "strict"),
    [
        ("There are 3 dogs.", 3, 3),
        ("three", 3, 3),
        ("Three", 0, 3),  # GVT knows small letters alone
        ("nine", 0, 9),  # and another spelling
        ("someone", 1, None),
        ("none", 0, 0),
        ("no dogs", 0, 0),
        ("many", 0, None),
        ("", 0, None),
        ("twelve", 0, 12),
        ("eighteen", 8, 18),
        ("I see dogs. 4", 0, None),
        ("2, or 3", 2, 2),
    ],
)
def test_counts(said: str, published: int, strict: int | None) -> None:
    assert published_count(said) == published
    assert strict_count(said) == strict


def test_counting_and_its_errors_by_hand() -> None:
    metrics = counting_accuracy(["nine", "2", "many", "4"], asked([("9",), ("3",), ("1",), ("4",)]))
    assert metrics["faithful"] == 25 and metrics["strict"] == 50
    assert metrics["faithful_mae"] == pytest.approx((9 + 1 + 1 + 0) / 4)
    assert metrics["strict_mae"] == pytest.approx((0 + 1 + 1 + 0) / 4)
    assert metrics["strict_rmse"] == pytest.approx((2 / 4) ** 0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("said", "answer", "faithful", "strict"),
    [
        ("Yes.", "yes", True, True),
        ("No, there is none", "no", True, True),
        ("I do not know", "no", True, False),
        ("It is not there", "no", True, False),
        ("Yes, and no cat", "no", True, False),
        ("Yes, and no cat", "yes", True, True),
        ("eyes", "yes", True, False),
        ("", "no", False, False),
    ],
)
def test_identification(said: str, answer: str, faithful: bool, strict: bool) -> None:
    metrics = identification_accuracy([said], asked([(answer,)]))
    assert metrics == {"faithful": 100.0 * faithful, "strict": 100.0 * strict}
    assert (yes_or_no(said) == answer) is strict


def test_baselines_look_at_no_image() -> None:
    seen = asked([("red",), ("red",), ("no",), ("no",), ("no",)], ["colour?", "colour?", "cat?", "cat?", "dog?"])
    new = asked([("blue",), ("no",), ("blue",)], ["colour?", "cat?", "bird?"])
    assert majority(new) == ["blue"] * 3
    assert question_majority(new, seen) == ["red", "no", "no"]


def test_all_that_answer_stand_beside_each_other() -> None:
    questions = asked([("yes",), ("no",)])
    found = compared(identification_accuracy, {"": ["yes", "no"], "majority": ["yes", "yes"]}, questions)
    assert found == {"faithful": 100, "faithful_majority": 50, "strict": 100, "strict_majority": 50}
