"""Fine-tuning: all of the encoder is trained on, as a classifier.

The defaults are MAE's for ViT-B on ImageNet-1K (He et al., 2022, appendix A, and FINETUNE.md of its repository).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.utils.model_ema import ModelEmaV3
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evomask.analysis.gradient_by_depth import GradientByDepth
from evomask.data.labelled_crops import LabelledCrops, StratifiedSubset
from evomask.data.loader import load_batches
from evomask.engine import distributed, parallel
from evomask.engine.loop import StepResult, TrainConfig, prepare_blocks, train, use_bfloat16
from evomask.engine.optim import OptimConfig, build_layer_decayed_adamw
from evomask.engine.pretrain import normalise
from evomask.engine.samples import task_over
from evomask.models.classifier import add_classifier
from evomask.models.encoders import Encoder, Pooling
from evomask.tasks.classification import predict
from evomask.tasks.labelled_data import LabelledDataConfig, check_shown, check_trainable
from evomask.tasks.validation_log import ValidationLog, final_metrics


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(LabelledDataConfig):
    """What to fine-tune on, and how.

    Attributes:
        label_share: of the training images of each class, chosen by the seed: 0.01 for 1%.
        pooling: what the head sees: the mean over patch tokens, or the class token.
        drop_path: stochastic depth rate of the last block.
        layer_decay: a block's rate over the next one's.
        crop_scale: range of the share of an image's area that a random crop takes.
        distortion: RandAugment as timm writes it; none for none.
        random_erasing: probability that a rectangle of an image is replaced by noise.
        mixup: alpha of mixup; 0 for none.
        cutmix: alpha of cutmix; 0 for none.
        label_smoothing: share of a label that is spread over all classes.
        ema: decay of a running mean of the weights, which is what is validated; none: the weights themselves.
        shown: how much of a validation image's shorter side is seen.
        validate_every: epochs from one validation to the next.
        gradients: log the mean absolute gradient of each block, for `evomask show gradients` (the paper's Fig. 11).
        optim: AdamW and its schedule; rates are at a batch of 256.
        loop: how long and how to train.
    """

    label_share: float = 1.0
    pooling: Pooling = "mean"
    drop_path: float = 0.1
    layer_decay: float = 0.65
    crop_scale: tuple[float, float] = (0.08, 1.0)
    distortion: str | None = "rand-m9-mstd0.5-inc1"
    random_erasing: float = 0.25
    mixup: float = 0.8
    cutmix: float = 1.0
    label_smoothing: float = 0.1
    ema: float | None = None
    shown: float = 0.875
    validate_every: int = 1
    gradients: bool = False
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=5e-4, min_lr=2.5e-7, warmup_epochs=5, betas=(0.9, 0.999))
    )
    loop: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=100, batch_size=1024))

    def __post_init__(self):
        check_shown(self.shown)
        for name, value in (("label-smoothing", self.label_smoothing), ("random-erasing", self.random_erasing)):
            if not 0 <= value <= 1:
                raise ValueError(f"--{name} is a share, from 0 to 1, not {value}")
        if self.ema is not None and not 0 <= self.ema <= 1:
            raise ValueError(f"--ema is the decay of a running mean, from 0 to 1, not {self.ema}")
        if min(self.mixup, self.cutmix) < 0:
            raise ValueError(f"--mixup and --cutmix must be at least 0, not {min(self.mixup, self.cutmix)}")
        if (self.mixup or self.cutmix) and self.loop.batch_size // self.loop.micro_batches % 2:
            raise ValueError("mixup and cutmix mix pairs of images: make the batch (or micro-batch) size even")
        if self.validate_every < 1:
            raise ValueError(f"--validate-every must be at least 1, not {self.validate_every}")
        if self.gradients and self.loop.parallel == "fsdp":
            raise ValueError("--gradients looks at whole weights: take --loop.parallel ddp with it")


def finetune(encoder: Encoder, config: FinetuneConfig, out: Path, resume: bool = False) -> dict[str, float]:
    """Accuracy of `encoder` fine-tuned with a head for the classes, in percent: `top1`, `top5`, and more.

    Args:
        encoder: its model is changed.
        config: how.
        out: the folder, for checkpoints, curves, validation.jsonl and predictions.safetensors.
        resume: go on from the newest checkpoint.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: images that cannot be learnt from, an encoder that cannot be trained.
    """
    settings = config.loop
    source, val = config.sources(encoder)
    check_trainable(source)
    if config.label_share != 1:
        source = StratifiedSubset(source, config.label_share, settings.seed)
    device = distributed.pick_device(settings.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        classifier = add_classifier(
            encoder.model, len(source.classes), pooling=config.pooling, drop_path=config.drop_path
        ).requires_grad_(True)
    classifier.to(device)
    average = None if config.ema is None else ModelEmaV3(classifier, config.ema)
    prepare_blocks(classifier, settings)
    dataset = LabelledCrops(source, encoder.image_size, encoder.in_chans, settings.seed, config.crop_scale, config.distortion)

    if settings.parallel == "fsdp":
        for model in (classifier,) if average is None else (classifier, average.module):
            parallel.shard(model, device, half=use_bfloat16(settings.precision, device))
    sampler = distributed.shared_out(len(source), settings.batch_size, settings.seed, settings.micro_batches)

    def batches(steps: range) -> Iterator[Any]:
        return load_batches(dataset, sampler(steps), config.workers, device.type)

    optimizer = build_layer_decayed_adamw(classifier, config.optim, config.layer_decay)
    if average is not None:
        optimizer.register_step_post_hook(lambda *_: average.update(classifier))
    task = task_over(
        sampler,
        model=classifier if average is None else nn.ModuleDict({"model": classifier, "average": average}),
        optimizer=optimizer,
        step=FinetuneStep(classifier, encoder, config, len(source.classes)),
        batches=batches,
        optim=config.optim,
        settings=settings,
    )
    judged = classifier if average is None else average.module

    def predictions():
        return predict(
            judged,
            val,
            encoder,
            device=device,
            shown=config.shown,
            batch_size=settings.batch_size // settings.micro_batches,
            workers=config.workers,
        )

    log = ValidationLog(task.model, predictions, out, source.classes, settings.epochs, config.validate_every)
    train(task, settings, out, [log], resume=resume)
    if average is not None:
        classifier.load_state_dict(average.module.state_dict())  # what was judged is what is left of the encoder
    return final_metrics(out)


class FinetuneStep:
    """One micro-batch of `LabelledCrops` -> loss: erased, mixed, and compared with smoothed labels."""

    def __init__(self, classifier: nn.Module, encoder: Encoder, config: FinetuneConfig, classes: int):
        self._classifier, self._mean, self._std = classifier, encoder.mean, encoder.std
        self._smoothing = config.label_smoothing
        self._metrics = GradientByDepth(classifier).row if config.gradients else dict
        device = next(classifier.parameters()).device
        self._erase = RandomErasing(config.random_erasing, mode="pixel", device=device.type)
        self._mix = None
        if config.mixup or config.cutmix:
            self._mix = Mixup(config.mixup, config.cutmix, label_smoothing=config.label_smoothing, num_classes=classes)

    def __call__(self, batch: tuple[Tensor, Tensor, Tensor], progress: float) -> StepResult:
        """The loss of one micro-batch."""
        device = next(self._classifier.parameters()).device
        images_uint8, labels, _ = (tensor.to(device, non_blocking=True) for tensor in batch)
        seed = int(torch.randint(2**32, ()))  # of the loop's generator, which is seeded for every step; on the CPU
        random.seed(seed)
        np.random.seed(seed)
        images = self._erase(normalise(images_uint8, self._mean, self._std))
        if self._mix is None:
            loss = cross_entropy(self._classifier(images).float(), labels, label_smoothing=self._smoothing)
            return StepResult(loss, self._metrics)
        images, targets = self._mix(images, labels)
        return StepResult(cross_entropy(self._classifier(images).float(), targets), self._metrics)
