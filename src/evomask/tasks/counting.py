"""Object counting: how many there are of something, answered by a language model (GVTBench's OC)."""

from dataclasses import dataclass
from pathlib import Path

from evomask.data.object_questions import counting_questions
from evomask.models.encoders import Encoder
from evomask.tasks.answers import counting_accuracy
from evomask.tasks.object_data import ObjectQuestionsConfig
from evomask.tasks.visual_language import answer_questions


@dataclass(frozen=True, kw_only=True)
class CountingConfig(ObjectQuestionsConfig):
    """Which images objects are counted in; and how that is learnt."""


def evaluate_counting(encoder: Encoder, config: CountingConfig, out: Path, resume: bool = False) -> dict[str, float]:
    """Object counting by a language model whose visual tokenizer is `encoder`.

    For the rest see `answer_questions`.

    Raises:
        ValueError: beside what `answer_questions` raises, an answer that is no number.
    """
    sets = config.questions(encoder, counting_questions)
    for questions in sets:
        for (answer, *_), text in zip(questions.answers, questions.texts, strict=True):
            if not answer.isdecimal():
                raise ValueError(f"{text!r} has the answer {answer!r}, which is no count: is it a file for identification?")
    return answer_questions(encoder, config, sets, counting_accuracy, out, resume)
