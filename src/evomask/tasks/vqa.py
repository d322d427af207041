"""Visual question answering: VQAv2's files, those of any data set in their layout, or the embedded scenes."""

from dataclasses import dataclass
from pathlib import Path

from evomask.data.questions import Questions, scene_questions
from evomask.data.vqa_files import read_vqa
from evomask.models.encoders import Encoder
from evomask.tasks.answers import vqa_accuracy
from evomask.tasks.visual_language import VisualLanguageConfig, answer_questions


@dataclass(frozen=True, kw_only=True)
class VqaConfig(VisualLanguageConfig):
    """Which questions; and how they are learnt.

    Attributes:
        train_questions: json, as v2_OpenEnded_mscoco_train2014_questions.json. None: all questions of the embedded scenes.
        train_annotations: json, as v2_mscoco_train2014_annotations.json.
        train_images: a folder of images whose names end in their numbers, as COCO_train2014_000000000009.jpg or 9.png.
        val_questions: the same of the questions that are judged.
        val_annotations: theirs.
        val_images: theirs.
    """

    train_questions: Path | None = None
    train_annotations: Path | None = None
    train_images: Path | None = None
    val_questions: Path | None = None
    val_annotations: Path | None = None
    val_images: Path | None = None

    def questions(self, encoder: Encoder) -> tuple[Questions, Questions]:
        """To train on and to validate on.

        Raises:
            ValueError: only some of the files are given, or one cannot be used.
        """
        files = self.files("questions", "annotations", "images")
        if not files:
            train, val = map(scene_questions, self.embedded_scenes(encoder))
            return train, val
        train, val = (
            read_vqa(files[f"{split}_questions"], files[f"{split}_annotations"], files[f"{split}_images"], encoder.in_chans)
            for split in ("train", "val")
        )
        return train, val


def evaluate_vqa(encoder: Encoder, config: VqaConfig, out: Path, resume: bool = False) -> dict[str, float]:
    """Visual question answering by a language model whose visual tokenizer is `encoder`.

    For the rest see `answer_questions`.
    """
    return answer_questions(encoder, config, config.questions(encoder), vqa_accuracy, out, resume)
