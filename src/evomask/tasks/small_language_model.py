"""Training a small language model on text alone: to answer questions about an image from what else is known of it, in words.

Where an image's embeddings will be there are, in this training, some other questions about the image with their answers. So the
model learns, before it ever sees an image, to look there for what it is asked.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evomask.data.questions import Questions
from evomask.data.sampler import sample_seed
from evomask.engine import distributed
from evomask.engine.checkpoint import checkpoints
from evomask.engine.loop import StepResult, TrainConfig, train
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.samples import task_over
from evomask.engine.signals import Stopped
from evomask.models.language_model import LanguageModel
from evomask.models.small_language_model import SmallModelConfig, make_small_language_model

FOLDER = "language_model"
"""Below an evaluation's: what it leaves there is a folder of transformers, for any later evaluation to name."""


@dataclass(frozen=True, kw_only=True)
class SmallLanguageConfig:
    """A language model made here, for `--language-model small`.

    Attributes:
        model: its size.
        facts: other questions about an image, at most, that stand in its place with their answers; how many is drawn.
        epochs: passes over the training questions; 0 leaves it untrained, to be trained together with the visual tokenizer.
        batch_size: questions a step.
        optim: AdamW and its schedule.
    """

    model: SmallModelConfig = field(default_factory=SmallModelConfig)
    facts: int = 6
    epochs: int = 3
    batch_size: int = 64
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=4e-3, warmup_epochs=0.2, betas=(0.9, 0.98), clip_grad=1.0)
    )

    def __post_init__(self):
        for name, least in (("facts", 0), ("epochs", 0), ("batch_size", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"--small.{name.replace('_', '-')} must be at least {least}, not {getattr(self, name)}")


def small_language_model(
    questions: Questions, prompts: list[str], config: SmallLanguageConfig, settings: TrainConfig, out: Path
) -> Path:
    """The folder of the model in OUT/language_model; it is trained first, or its training goes on, where it is not there yet.

    Args:
        questions: to learn from; their images are not looked at.
        prompts: of each of them.
        config: the model and its training.
        settings: for seed, device, precision and how often state is saved.
        out: the folder of the evaluation.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: transformers is not installed, or there are fewer questions than a batch has.
    """
    folder = out / FOLDER
    finished = folder / "model"
    if distributed.from_first(finished.is_dir):
        return finished
    distributed.from_first(lambda: folder.mkdir(exist_ok=True))
    facts = Facts(questions, config.facts, settings.seed)
    with distributed.agreed():
        texts = {*prompts, *facts.sentences, *(f" {questions.answer(index)}" for index in range(len(questions)))}
        language = make_small_language_model(texts, config.model, settings.seed)
    if config.epochs > 0:
        _train(language, questions, prompts, facts, config, settings, folder, out)
    distributed.from_first(lambda: _save(language, finished))
    return finished


class Facts:
    """What is known of the image of a question, in words: other questions about it, with their answers, in random order.

    Those that are not answered by yes or no say most, and are taken first: of easy-vqa's dozen about an image, which shape it
    is and of which colour settles nearly all others. From a few drawn without regard to that, a small model did not learn
    within 1,500 steps that it is worth its while to look at them.

    Args:
        questions: about images.
        most: so many at most, and as few as none; the question itself may be among them.
        seed: of the draws.
    """

    def __init__(self, questions: Questions, most: int, seed: int):
        self._answers = [questions.answer(index) for index in range(len(questions))]
        self.sentences = [f"{text} {answer}." for text, answer in zip(questions.texts, self._answers, strict=True)]
        self._image_of, self._most, self._seed = questions.image_of.tolist(), most, seed
        self._about: dict[int, list[int]] = defaultdict(list)
        for index, image in enumerate(self._image_of):
            self._about[image].append(index)

    def about(self, epoch: int, index: int) -> str:
        """Those that stand before a question in an epoch."""
        generator = np.random.default_rng(sample_seed(self._seed, epoch, index))
        known = generator.permutation(self._about[self._image_of[index]])
        count = generator.integers(self._most + 1)
        chosen = sorted(known, key=lambda each: self._answers[each] in ("yes", "no"))[:count]
        return " ".join(self.sentences[each] for each in generator.permutation(chosen).astype(int))


def _train(
    language: LanguageModel,
    questions: Questions,
    prompts: list[str],
    facts: Facts,
    config: SmallLanguageConfig,
    settings: TrainConfig,
    folder: Path,
    out: Path,
) -> None:
    language.unfreeze()
    device = distributed.pick_device(settings.device)
    language.model.to(device)
    plain = replace(settings, epochs=config.epochs, batch_size=config.batch_size, parallel="ddp", checkpoint_activations=False)
    sampler = distributed.shared_out(len(questions), plain.batch_size, plain.seed, plain.micro_batches)

    def batches(steps: range) -> Iterator[list[tuple[int, int]]]:
        return iter(sampler(steps))

    def step(keys: list[tuple[int, int]], progress: float) -> StepResult:
        context, mask = _embedded(language, [facts.about(epoch, index) for epoch, index in keys])
        asked = [prompts[index] for _, index in keys]
        answers = [questions.answer(index) for _, index in keys]
        return StepResult(language.answer_loss(context, asked, answers, mask).mean())

    task = task_over(
        sampler,
        model=language.trained,
        optimizer=build_adamw(language.model, config.optim),
        step=step,
        batches=batches,
        optim=config.optim,
        settings=plain,
    )
    try:
        train(task, plain, folder, resume=distributed.from_first(lambda: bool(checkpoints(folder))))
    except Stopped as stopped:
        raise Stopped(stopped.signum, stopped.steps, out) from stopped
    language.model.requires_grad_(False)


def _embedded(language: LanguageModel, texts: list[str]) -> tuple[Tensor, Tensor]:
    """Texts of unequal length as embeddings (B, L, width), and which of these are there (B, L)."""
    rows = [language.tokenizer(text, add_special_tokens=False).input_ids if text else [] for text in texts]
    length = max(1, *map(len, rows))
    ids = torch.tensor([row + [language.tokenizer.pad_token_id] * (length - len(row)) for row in rows], device=language.device)
    there = (
        torch.arange(length, device=language.device) < torch.tensor([len(row) for row in rows], device=language.device)[:, None]
    )
    return language.embed(ids), there


def _save(language: LanguageModel, folder: Path) -> None:
    unfinished = folder.with_name(folder.name + ".unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    language.model.save_pretrained(unfinished)
    language.tokenizer.save_pretrained(unfinished)
    unfinished.rename(folder)
