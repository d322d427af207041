"""Multi-class identification: whether there is something, answered by a language model (GVTBench's MCI)."""

from dataclasses import dataclass
from pathlib import Path

from evomask.data.object_questions import identification_questions
from evomask.models.encoders import Encoder
from evomask.tasks.answers import identification_accuracy
from evomask.tasks.object_data import ObjectQuestionsConfig
from evomask.tasks.visual_language import answer_questions


@dataclass(frozen=True, kw_only=True)
class IdentificationConfig(ObjectQuestionsConfig):
    """Which images objects are identified in; and how that is learnt."""


def evaluate_identification(
    encoder: Encoder, config: IdentificationConfig, out: Path, resume: bool = False
) -> dict[str, float]:
    """Identification of objects by a language model whose visual tokenizer is `encoder`.

    For the rest see `answer_questions`.

    Raises:
        ValueError: beside what `answer_questions` raises, an answer that is neither yes nor no.
    """
    sets = config.questions(encoder, identification_questions)
    for questions in sets:
        for (answer, *_), text in zip(questions.answers, questions.texts, strict=True):
            if answer not in ("yes", "no"):
                raise ValueError(f"{text!r} has the answer {answer!r}, neither yes nor no: is it a file for counting?")
    return answer_questions(encoder, config, sets, identification_accuracy, out, resume)
