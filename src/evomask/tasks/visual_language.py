"""An encoder as the visual tokenizer of a language model: what all tasks that ask about images have in common.

The encoder's patches go through a LayerNorm, a Perceiver resampler and a linear layer to the language model, as embeddings
between `<Img> ` and `</Img>`; after them comes the question (GVT: Wang et al., 2023; the paper's Section V-B and Table VII).
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from evomask.data.loader import in_order, load_batches
from evomask.data.question_images import QuestionCrops, WholeQuestionImages
from evomask.data.questions import Questions
from evomask.data.scenes import Scenes
from evomask.engine import distributed
from evomask.engine.loop import StepResult, TrainConfig, prepare_blocks, train, use_bfloat16
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.pretrain import normalise
from evomask.engine.progress import ProgressBar
from evomask.engine.run import write_atomically
from evomask.engine.samples import task_over
from evomask.models.encoders import Encoder
from evomask.models.language_model import LanguageModel, LoraConfig, load_language_model
from evomask.models.resampler import ResamplerConfig
from evomask.models.visual_tokenizer import VisualTokenizer
from evomask.tasks.answers import Metric, compared, majority, question_majority
from evomask.tasks.cached_tokens import cache_tokens
from evomask.tasks.small_language_model import SmallLanguageConfig, small_language_model
from evomask.tasks.validation_log import ValidationLog, final_metrics

ANSWERS = "answers.jsonl"

MOST_VAL_SCENES = 5_000

SMALL_RESAMPLER = ResamplerConfig(latents=8, depth=2, heads=4, head_width=32, latent_std=0.02)

STANDARDISED_OVER = 256
"""So many images are looked at before training, to know what all have in common."""


@dataclass(frozen=True, kw_only=True)
class VisualLanguageConfig:
    """Which language model, what is trained, and how. The defaults are for a small language model, on a CPU.

    Attributes:
        language_model: a folder, or a repository of Hugging Face's hub, with a causal language model; small: one made here,
            with a tokenizer trained on the questions, and trained on their text alone before it is frozen.
        language: what is trained of it: nothing (frozen), adapters of low rank (lora), or all of it (full).
        tune_encoder: train the encoder jointly, instead of leaving it frozen.
        prompt: what the language model reads after the image, with {} for the question.
        new_tokens: of an answer, at most.
        repetition_penalty: of generation; GVT has 1.5 for VQA.
        crop_scale: range of the share of an image's area that a random crop takes in training.
        flip: whether crops are mirrored at random.
        cached: compute what a frozen encoder makes of each training image once, and keep it: of whole images, neither cropped
            nor mirrored. Many times faster, and patches x width x 2 bytes of memory an image.
        standardise: bring each channel of the encoder's tokens to mean 0 and deviation 1 over the first training images, before
            anything is learnt. What all images have in common else outweighs what tells them apart.
        language_rate: the learning rate of what is trained of the language model, over that of everything else.
        shuffled: also ask about wrong images, which shows how much is answered without looking.
        val_limit: validate on so many questions, from all over the set; none: on all of them.
        validate_every: epochs from one validation to the next; there is one at the end.
        scenes: training scenes where no files are given; there are half as many for validation, and at most 5,000.
        workers: processes that load images.
        resampler: its size.
        lora: of the adapters.
        small: the language model made here.
        optim: AdamW and its schedule; rates are at a batch of 256.
        loop: how long and how to train.
    """

    language_model: str = "small"
    language: Literal["frozen", "lora", "full"] = "frozen"
    tune_encoder: bool = False
    prompt: str = "Question: {} Answer:"
    new_tokens: int = 32
    repetition_penalty: float = 1.0
    crop_scale: tuple[float, float] = (0.5, 1.0)
    flip: bool = True
    cached: bool = False
    standardise: bool = True
    language_rate: float = 1.0
    shuffled: bool = True
    val_limit: int | None = None
    validate_every: int = 5
    scenes: int = 2_000
    workers: int = 2
    resampler: ResamplerConfig = SMALL_RESAMPLER
    lora: LoraConfig = field(default_factory=LoraConfig)
    small: SmallLanguageConfig = field(default_factory=SmallLanguageConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=4e-3, warmup_epochs=0.2, betas=(0.9, 0.98), clip_grad=1.0)
    )
    loop: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=5, batch_size=64))

    def files(self, *parts: str) -> dict[str, Path]:
        """The paths of the options `train_PART` and `val_PART`, all of them, or none where scenes are used.

        Raises:
            ValueError: some are given and some are not.
        """
        names = [f"{split}_{part}".rstrip("_") for split in ("train", "val") for part in parts]
        given = {name: path for name in names if (path := getattr(self, name)) is not None}
        missing = [f"--{name.replace('_', '-')}" for name in names if name not in given]
        if given and missing:
            raise ValueError(f"give {' and '.join(missing)}, too, or no files at all, for the embedded scenes")
        return given

    def embedded_scenes(self, encoder: Encoder) -> tuple[Scenes, Scenes]:
        """Those to train on and those to validate on."""
        size, channels = encoder.image_size, encoder.in_chans
        train = Scenes(size, self.scenes, channels=channels)
        return train, Scenes(size, min(-(-self.scenes // 2), MOST_VAL_SCENES), split="val", channels=channels)

    def __post_init__(self):
        if self.prompt.count("{}") != 1:
            raise ValueError(
                f"--prompt needs {{}} where the question goes, as in 'Question: {{}} Answer:', not {self.prompt!r}"
            )
        if self.small.epochs == 0 and self.language != "full" and self.language_model == "small":
            raise ValueError("a small language model that is not trained on text must be trained with images: --language full")
        for name in ("new_tokens", "validate_every", "scenes"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")
        if self.language_rate <= 0:
            raise ValueError(
                f"--language-rate must be above 0, not {self.language_rate}; --language frozen trains nothing of it"
            )
        if self.val_limit is not None and self.val_limit < 1:
            raise ValueError(f"--val-limit must be at least 1, not {self.val_limit}")
        if self.cached and self.tune_encoder:
            raise ValueError("an encoder that is trained makes something else of an image each time: --cached False")
        if self.loop.parallel != "ddp":
            raise ValueError("a language model is held whole by each process here: leave --loop.parallel at ddp")


def answer_questions(
    encoder: Encoder,
    config: VisualLanguageConfig,
    questions: tuple[Questions, Questions],
    metric: Metric,
    out: Path,
    resume: bool,
) -> dict[str, float]:
    """What a language model answers about images, after training; in percent, with what is answered without looking beside it.

    Args:
        encoder: its model is changed where it is trained jointly.
        config: how.
        questions: to train on, and to validate on.
        metric: of answers.
        out: the folder, for checkpoints, curves, validation.jsonl and answers.jsonl.
        resume: go on from the newest checkpoint.

    Returns:
        The metric's, of the model; and with `_shuffled`, `_majority` and `_question_majority` after their names, of the model
        with wrong images, of the answer that is right most often, and of that most often right of the question in training.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: a language model that cannot be loaded, or too few questions.
    """
    settings = config.loop
    asked, val = questions[0], questions[1].some(config.val_limit)
    device = distributed.pick_device(settings.device)
    prompts = [config.prompt.replace("{}", text) for text in asked.texts]
    name = config.language_model
    if name == "small":
        name = str(small_language_model(asked, prompts, config.small, settings, out))
    model = _build(encoder, config, name, device)
    sampler = distributed.shared_out(len(asked), settings.batch_size, settings.seed, settings.micro_batches)
    sampler(range(0))  # too few questions are said before any image is looked at
    if config.cached:
        with torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(settings.precision, device)):
            tokens = cache_tokens(model.look, asked, encoder.image_size, device=device, workers=config.workers)

        def batches(steps: range) -> Iterator[Any]:
            for keys in sampler(steps):
                chosen = torch.tensor([index for _, index in keys])
                yield tokens.of(chosen), chosen
    else:
        dataset = QuestionCrops(asked, encoder.image_size, encoder.in_chans, settings.seed, config.crop_scale, config.flip)

        def batches(steps: range) -> Iterator[Any]:
            return load_batches(dataset, sampler(steps), config.workers, device.type)

    look = model.to_device if config.cached else model.look
    if config.standardise:
        first = range(-(-STANDARDISED_OVER // settings.batch_size))
        model.standardise(look(images) for images, _ in batches(first))

    def step(batch: tuple[Tensor, Tensor], progress: float) -> StepResult:
        indices = [max(index, 0) for index in batch[1].tolist()]
        asked_now, answers = [prompts[index] for index in indices], [asked.answer(index) for index in indices]
        return StepResult(model.loss(look(batch[0]), asked_now, answers))

    task = task_over(
        sampler,
        model=model.trained,
        optimizer=build_adamw(model.trained, config.optim, model.scales),
        step=step,
        batches=batches,
        optim=config.optim,
        settings=settings,
    )

    def judged() -> Answers:
        said = {"": model.answers(val, "validation questions")}
        if config.shuffled:
            said["shuffled"] = model.answers(val.with_shuffled_images(settings.seed), "with wrong images")
        said |= {"majority": majority(val), "question_majority": question_majority(val, asked)}
        return Answers(said, val, metric)

    log = ValidationLog(model.trained, judged, out, [], settings.epochs, config.validate_every)
    train(task, settings, out, [log], resume=resume)
    return final_metrics(out)


def _build(encoder: Encoder, config: VisualLanguageConfig, name: str, device: torch.device) -> "VisualLanguageModel":
    half = use_bfloat16(config.loop.precision, device)
    with distributed.agreed():
        language = load_language_model(name, "bfloat16" if half and config.language != "full" else "float32")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.loop.seed)
            if config.language == "lora":
                language.adapt(config.lora)
            tokenizer = VisualTokenizer(encoder, language.width, config.resampler, config.tune_encoder)
    if config.language == "full":
        language.unfreeze()
    prepare_blocks(tokenizer, config.loop)
    if config.loop.checkpoint_activations:
        language.checkpoint_activations()
    for module in (encoder.model, tokenizer, language.model):
        module.to(device)
    return VisualLanguageModel(tokenizer, language, encoder, config)


class VisualLanguageModel:
    """A visual tokenizer and a language model.

    Attributes:
        trained: all that is trained, and so is in checkpoints: not the frozen language model, nor a frozen encoder.
        scales: its parts, and the learning rate of each over the configured one.
    """

    def __init__(self, tokenizer: VisualTokenizer, language: LanguageModel, encoder: Encoder, config: VisualLanguageConfig):
        self.trained = nn.ModuleDict({"tokenizer": tokenizer, "language": language.trained})
        self.scales = [(self.trained["tokenizer"], 1.0), (self.trained["language"], config.language_rate)]
        self._tokenizer, self._language, self._config = tokenizer, language, config
        self._encoder = encoder

    def look(self, images_uint8: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D), the encoder's patch tokens."""
        return self._tokenizer.look(normalise(self.to_device(images_uint8), self._encoder.mean, self._encoder.std))

    def to_device(self, tensor: Tensor) -> Tensor:
        """To where it is computed."""
        return tensor.to(self._language.device, non_blocking=True)

    @torch.no_grad()
    def standardise(self, batches: Iterable[Tensor]) -> None:
        """Over the patch tokens (B, N, D) of these images, of all processes."""
        with distributed.agreed():
            sums = [torch.stack([(tokens.double() ** power).mean(dim=(0, 1)) for power in (1, 2)]) for tokens in batches]
        mean, square = distributed.mean(torch.stack(sums).mean(dim=0))
        self._tokenizer.standardise(mean, (square - mean**2).clamp(min=0).sqrt())

    def loss(self, tokens_BND: Tensor, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Scalar, the mean over questions: so it does not change with how a batch is shared out."""
        return self._language.answer_loss(self._tokenizer(tokens_BND), prompts, answers).mean()

    def answers(self, questions: Questions, title: str) -> list[str]:
        """To every question, in every process; each has answered its share."""
        config = self._config
        own = [index % len(questions) for index in distributed.own_share(len(questions))]
        dataset = Subset(WholeQuestionImages(questions, self._encoder.image_size), own)
        batch_size = max(1, config.loop.batch_size // config.loop.micro_batches)
        half = use_bfloat16(config.loop.precision, self._language.device)
        said: list[str] = []
        with torch.no_grad(), distributed.agreed(), closing(ProgressBar(title, len(own))) as bar:
            for images, indices in in_order(dataset, batch_size, config.workers):
                prompts = [config.prompt.replace("{}", questions.texts[int(index)]) for index in indices]
                with torch.autocast(self._language.device.type, torch.bfloat16, enabled=half):
                    said += self._language.answer(
                        self._tokenizer(self.look(images)),
                        prompts,
                        most=config.new_tokens,
                        repetition_penalty=config.repetition_penalty,
                    )
                bar.update(len(said))
        everywhere = distributed.gathered_objects(said)
        return [text for part in everywhere for text in part][: len(questions)]


@dataclass(frozen=True)
class Answers:
    """What was said to the questions, and by whom.

    Attributes:
        said_by: answers by the name of who gives them; "" is the model.
        questions: to all of them.
        metric: that they are judged by.
    """

    said_by: Mapping[str, Sequence[str]]
    questions: Questions
    metric: Metric

    def metrics(self) -> dict[str, float]:
        """Those of all of them, beside each other."""
        return compared(self.metric, self.said_by, self.questions)

    def save(self, out: Path, classes: list[str]) -> None:
        """Write OUT/answers.jsonl, a row for each question."""
        rows = []
        for index, text in enumerate(self.questions.texts):
            image = self.questions.images.name(int(self.questions.image_of[index]))
            said = {name or "said": answers[index] for name, answers in self.said_by.items()}
            rows.append({"image": image, "question": text, "answers": self.questions.answers[index]} | said)
        write_atomically(out / ANSWERS, "".join(json.dumps(row) + "\n" for row in rows))
