"""Accuracy of what a language model has said about images: GVT's rules as they are published, and with their defects mended.

`faithful` is what GVT's code computes (https://github.com/TencentARC/GVT, gvt/modules/evaluations), `strict` asks for what it
means to: whole words, numbers written alike on both sides, "nine" spelt right, an answer that is one. All are in percent.
"""

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence

from evomask.data.questions import Questions
from evomask.tasks.answer_text import (
    NUMBER_WORDS,
    as_words,
    first_sentence,
    holds_words,
    published_sentence,
    with_digits,
    without_punctuation,
)

Metric = Callable[[Sequence[str], Questions], dict[str, float]]
"""(what was said to each question, the questions) -> metrics by name."""

_ENOUGH = 3
"""Annotators who agree make an answer right."""


def vqa_accuracy(said: Sequence[str], questions: Questions) -> dict[str, float]:
    """VQA's accuracy: `faithful`, `strict` and `exact`, and `strict` by the kind of answer where there are kinds.

    An answer is as right as annotators agree with it: with each of ten left out in turn, a third for each of the other nine,
    at most one. Of fewer annotators all but one are enough; a single one's answer is compared itself. Agreement is, for GVT,
    that the first sentence contains the annotator's answer; strictly, as whole words and with both brought into one form;
    exactly, as in VQA itself, that all that was said is the answer.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for text, answers, kind in zip(said, questions.answers, questions.kinds, strict=True):
        sentence = as_words(first_sentence(text))
        forms = [as_words(answer) for answer in answers]
        strict = _agreement([holds_words(sentence, form) for form in forms])
        scores["faithful"].append(_agreement(_published_matches(text, answers)))
        scores["strict"].append(strict)
        scores["exact"].append(_agreement([bool(form) and form == as_words(text) for form in forms]))
        if kind:
            scores[f"strict_{kind.replace('/', '_').replace(' ', '_')}"].append(strict)
    return {name: _percent(sum(values) / len(values)) for name, values in scores.items()}


def _published_matches(text: str, answers: Sequence[str]) -> list[bool]:
    """As GVT compares: parts of words count, an empty answer is in everything, only what was said has digits for numbers."""
    first_line = text.strip().split("\n")[0].strip(string.punctuation)
    sentence = with_digits(without_punctuation(published_sentence(first_line).lower()))
    if len(set(answers)) > 1:
        answers = [without_punctuation(answer) for answer in answers]
    return [answer.lower() in sentence for answer in answers]


def _agreement(matches: Sequence[bool]) -> float:
    if len(matches) == 1:
        return float(matches[0])
    enough = min(_ENOUGH, len(matches) - 1)
    found = sum(matches)
    return sum(min(1.0, (found - own) / enough) for own in matches) / len(matches)


def counting_accuracy(said: Sequence[str], questions: Questions) -> dict[str, float]:
    """Counts that are right, `faithful` and `strict`; of each also the error in objects: mean, and root of the mean square.

    GVT replaces number words wherever small letters make one up ("someone" is 1, "Two" is not 2), does not know how "nine" is
    spelt, and takes the first digits, or else 0. Strictly words count whole, up to twenty, and what holds no number is wrong,
    and 0 in the errors.
    """
    truth = [int(answer) for (answer, *_) in questions.answers]
    metrics: dict[str, float] = {}
    for name, read in {"faithful": published_count, "strict": strict_count}.items():
        counts = [read(text) for text in said]
        errors = [abs((count or 0) - true) for count, true in zip(counts, truth, strict=True)]
        right = sum(count == true for count, true in zip(counts, truth, strict=True))
        metrics[name] = _percent(right / len(truth))
        metrics[f"{name}_mae"] = round(sum(errors) / len(errors), 4)
        metrics[f"{name}_rmse"] = round((sum(error**2 for error in errors) / len(errors)) ** 0.5, 4)
    return metrics


def published_count(text: str) -> int:
    """GVT's reading of a count."""
    sentence = published_sentence(text)
    for number, word in enumerate(("none", *NUMBER_WORDS[1:9], "nive")):
        sentence = sentence.replace(word, str(number))
    found = re.search(r"\d+", sentence)
    return int(found[0]) if found else 0


_COUNTS = {"no": 0, "none": 0} | {word: number for number, word in enumerate(NUMBER_WORDS)}
_TEENS = ("eleven", "twelve", *(f"{stem}teen" for stem in ("thir", "four", "fif", "six", "seven", "eigh", "nine")), "twenty")
_COUNTS |= {word: number for number, word in enumerate(_TEENS, start=11)}
_A_COUNT = re.compile(rf"\b(?:\d+|{'|'.join(_COUNTS)})\b")


def strict_count(text: str) -> int | None:
    """The first number of the first sentence, in digits or as a word; None where there is none."""
    found = _A_COUNT.search(first_sentence(text).lower())
    return None if found is None else int(found[0]) if found[0].isdigit() else _COUNTS[found[0]]


def identification_accuracy(said: Sequence[str], questions: Questions) -> dict[str, float]:
    """Yes and no that are right, `faithful` and `strict`.

    For GVT letters are enough: "no" is in "not" and in "know", and what says both is right in either case. Strictly the first
    whole word of the two counts.
    """
    pairs = [(text, answer.lower()) for text, (answer, *_) in zip(said, questions.answers, strict=True)]
    faithful = [answer in published_sentence(text).lower() for text, answer in pairs]
    strict = [yes_or_no(text) == answer for text, answer in pairs]
    return {"faithful": _percent(sum(faithful) / len(pairs)), "strict": _percent(sum(strict) / len(pairs))}


def yes_or_no(text: str) -> str | None:
    """The first of these words in the first sentence; None where there is neither."""
    found = re.search(r"\b(yes|no)\b", first_sentence(text).lower())
    return None if found is None else found[0]


def majority(questions: Questions) -> list[str]:
    """To every question the answer that is right most often, of all constant answers: no image and no question is looked at."""
    commonest = Counter(questions.answer(index) for index in range(len(questions))).most_common(1)[0][0]
    return [commonest] * len(questions)


def question_majority(questions: Questions, seen: Questions) -> list[str]:
    """To every question what was most often right of the same question in training, else of all: no image is looked at."""
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    overall: Counter[str] = Counter()
    for index, text in enumerate(seen.texts):
        answer = seen.answer(index)
        by_text[text][answer] += 1
        overall[answer] += 1
    return [(by_text.get(text) or overall).most_common(1)[0][0] for text in questions.texts]


def compared(metric: Metric, said_by: Mapping[str, Sequence[str]], questions: Questions) -> dict[str, float]:
    """The same metrics of several that answer, beside each other: `strict`, then `strict_majority`, ...

    Args:
        metric: of one.
        said_by: what each says, by its name; "" is the model that is judged.
        questions: to all of them.
    """
    found = {name: metric(said, questions) for name, said in said_by.items()}
    return {f"{kind}_{name}".strip("_"): found[name][kind] for kind in found[""] for name in found}


def _percent(share: float) -> float:
    return round(100 * share, 4)
