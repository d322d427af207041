"""What a step of training a tokenizer is, and what such a run is configured by."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from evomask.data.loader import load_batches
from evomask.data.pretraining import PretrainingImages
from evomask.engine import distributed
from evomask.engine.loop import StepResult, Task, TrainConfig
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.pretrain import DataConfig
from evomask.engine.samples import task_over
from evomask.models.discrete_vae import DiscreteVAE, DiscreteVAEConfig
from evomask.models.tokenizer import code_usage


@dataclass(frozen=True, kw_only=True)
class TrainTokenizerConfig:
    """A tokenizer, and how it is trained: to restore images from their tokens, by the squared error of their pixels.

    Attributes:
        model: the tokenizer.
        image_size: height and width in pixels of what it is trained on; the stride divides both. A BEiT asks it for the tokens
            of images of its own grid times the stride.
        least_perplexity: a tokenizer that uses fewer tokens than this, counted by their perplexity, has collapsed, and the run
            ends in an error.
        measured: on so many images, from all over the set, it is measured after every epoch.
        data: the images; their mean and standard deviation are not used.
        optim: the optimisation.
        train: how long and how to train.
    """

    model: DiscreteVAEConfig = field(default_factory=DiscreteVAEConfig)
    image_size: tuple[int, int] = (112, 112)
    least_perplexity: float = 10.0
    measured: int = 1_000
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=2e-3, warmup_epochs=0.5, betas=(0.9, 0.99), weight_decay=0.0, clip_grad=1.0)
    )
    train: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=20, batch_size=128))

    def __post_init__(self):
        height, width = self.image_size
        if height < 1 or width < 1 or height % self.model.stride or width % self.model.stride:
            raise ValueError(f"--model.stride {self.model.stride} does not divide --image-size {height} {width}")
        if not 1 <= self.least_perplexity < self.model.vocabulary:
            raise ValueError(f"--least-perplexity lies from 1 to below the number of tokens, {self.model.vocabulary}")
        if self.measured < 1:
            raise ValueError(f"--measured must be at least 1, not {self.measured}")
        if self.train.parallel != "ddp" or self.train.checkpoint_activations or self.train.compile == "on":
            raise ValueError(
                "a tokenizer has too few weights to be sharded, checkpointed or compiled: leave --train.parallel at ddp"
            )


def build_tokenizer(config: TrainTokenizerConfig) -> DiscreteVAE:
    """The tokenizer with the initial weights of the run: a function of the configuration's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        return config.model.build()


@dataclass(frozen=True)
class TokenizerStep:
    """Restore images from their tokens."""

    model: DiscreteVAE

    def __call__(self, batch: tuple[Tensor, Tensor, Tensor], progress: float) -> StepResult:
        """One micro-batch of `PretrainingImages` -> the mean squared error of pixels in [0, 1]."""
        pixels = batch[0].to(next(self.model.parameters()).device, non_blocking=True).float() / 255
        restored, ids = self.model.autoencode(pixels)
        return StepResult(functional.mse_loss(restored.float(), pixels), partial(code_usage, ids, self.model.vocabulary))


def tokenizer_task(config: TrainTokenizerConfig, model: DiscreteVAE) -> Task:
    """What the loop has to be told to train `model` as configured; it goes to its device. Nothing is written yet.

    Raises:
        ValueError: the data or the device cannot be used.
    """
    settings = config.train
    source = config.data.source(config.image_size, config.model.in_chans, settings.seed)
    dataset = PretrainingImages(
        source,
        config.image_size,
        channels=config.model.in_chans,
        patches=1,  # nothing is hidden
        seed=settings.seed,
        scale=config.data.crop_scale,
        flip=config.data.flip,
    )
    sampler = distributed.shared_out(len(source), settings.batch_size, settings.seed, settings.micro_batches)
    device = distributed.pick_device(settings.device)
    model.to(device)
    if settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda"):
        model.encoder.compile()
        model.decoder.compile()
    return task_over(
        sampler,
        model=model,
        optimizer=build_adamw(model, config.optim),
        step=TokenizerStep(model),
        batches=lambda steps: load_batches(dataset, sampler(steps), config.data.workers, device.type),
        optim=config.optim,
        settings=settings,
    )
