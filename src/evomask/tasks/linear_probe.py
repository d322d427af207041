"""Linear probe: what a linear classifier makes of the features of a frozen encoder.

The defaults are MAE's on ImageNet-1K (He et al., 2022, appendix A): LARS, a BatchNorm without affine parameters before the
linear layer, crops and flips alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from evomask.data.labelled_crops import LabelledCrops, StratifiedSubset
from evomask.data.loader import load_batches
from evomask.engine import distributed
from evomask.engine.loop import StepResult, TrainConfig, train
from evomask.engine.optim import OptimConfig, build_lars
from evomask.engine.samples import task_over
from evomask.models.encoders import Encoder, Pooling
from evomask.tasks.classification import Predictions
from evomask.tasks.features import extract_features, features_of
from evomask.tasks.labelled_data import LabelledDataConfig, check_shown, check_trainable
from evomask.tasks.validation_log import ValidationLog, final_metrics


@dataclass(frozen=True, kw_only=True)
class LinearProbeConfig(LabelledDataConfig):
    """What to train on, and how.

    Attributes:
        label_share: of the training images of each class, chosen by the seed: 0.01 for 1%.
        pooling: the features: the class token, as MAE probes, or the mean over patch tokens.
        rates: learning rates at a batch of 256. Of several, a classifier is trained with each, all in one pass, and the one
            that is best on the validation images is reported, as usual. LARS moves the weights by about a thousandth of their
            norm times the rate in a step: few steps need high rates.
        cached: whether features are computed once, of the centres of the training images, instead of those of new crops in
            every epoch; many times faster.
        crop_scale: range of the share of an image's area that a random crop takes.
        shown: how much of an image's shorter side is seen, of validation images, and of all where features are cached.
        validate_every: epochs from one validation to the next.
        optim: the schedule; of its base_lr each classifier has that multiple which makes its own rate.
        loop: how long and how to train.
    """

    label_share: float = 1.0
    pooling: Pooling = "token"
    rates: tuple[float, ...] = (0.1,)
    cached: bool = False
    crop_scale: tuple[float, float] = (0.08, 1.0)
    shown: float = 0.875
    validate_every: int = 10
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(base_lr=0.1, warmup_epochs=10, weight_decay=0.0))
    loop: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=90, batch_size=16384))

    def __post_init__(self):
        check_shown(self.shown)
        if not self.rates or min(self.rates) <= 0:
            raise ValueError(f"--rates are learning rates above 0, not {self.rates}")
        if self.optim.base_lr == 0:
            raise ValueError("--optim.base-lr must be above 0: --rates are multiples of it")
        if self.validate_every < 1:
            raise ValueError(f"--validate-every must be at least 1, not {self.validate_every}")
        if self.loop.parallel != "ddp" or self.loop.checkpoint_activations or self.loop.compile == "on":
            raise ValueError(
                "a linear probe has too few weights to be sharded, checkpointed or compiled: leave --loop.parallel at ddp"
            )


class LinearProbes(nn.Module):
    """Linear classifiers on the same features, which a BatchNorm without parameters of its own brings to one scale.

    Args:
        width: D, of a feature.
        classes: number of classes.
        count: number of classifiers.
    """

    def __init__(self, width: int, classes: int, count: int):
        super().__init__()
        self.norm = nn.BatchNorm1d(width, affine=False, eps=1e-6)
        heads = [nn.Linear(width, classes) for _ in range(count)]
        for head in heads:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D) -> (count, B, classes) logits."""
        normed = self.norm(features)
        return torch.stack([head(normed) for head in self.heads])


def linear_probe(encoder: Encoder, config: LinearProbeConfig, out: Path, resume: bool = False) -> dict[str, float]:
    """Accuracy of a linear classifier on the features of `encoder`, in percent: `top1`, `top5`, and more.

    Args:
        encoder: stays as it is.
        config: how.
        out: the folder, for checkpoints, curves, validation.jsonl and predictions.safetensors.
        resume: go on from the newest checkpoint.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: images that cannot be learnt from.
    """
    settings = config.loop
    source, val = config.sources(encoder)
    check_trainable(source)
    if config.label_share != 1:
        source = StratifiedSubset(source, config.label_share, settings.seed)
    device = distributed.pick_device(settings.device)
    encoder.model.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        probes = LinearProbes(encoder.width, len(source.classes), len(config.rates)).to(device)

    sampler = distributed.shared_out(len(source), settings.batch_size, settings.seed, settings.micro_batches)

    sampler(range(0))  # too few images are said before features are computed
    looks = {"device": device, "workers": config.workers, "pooling": config.pooling, "shown": config.shown}
    val_features, val_labels = extract_features(encoder, val, "validation images", **looks)
    if config.cached:
        features, labels = extract_features(encoder, source, "training images", **looks)

        def own_micro_batches(steps: range) -> Iterator[tuple[Tensor, Tensor]]:
            for keys in sampler(steps):
                chosen = torch.tensor([index for _, index in keys])
                yield features[chosen].to(device), labels[chosen].to(device)
    else:
        dataset = LabelledCrops(source, encoder.image_size, encoder.in_chans, settings.seed, config.crop_scale)

        def own_micro_batches(steps: range) -> Iterator[tuple[Tensor, Tensor]]:
            for images, labels, _ in load_batches(dataset, sampler(steps), config.workers, device.type):
                yield features_of(encoder, images.to(device), config.pooling), labels.to(device)

    def batches(steps: range) -> Iterator[tuple[Tensor, Tensor]]:
        """The features of a whole batch in every process, as the norm's statistics are of a whole batch."""
        own = own_micro_batches(steps)
        each = distributed.parts_of_a_batch(settings.micro_batches) // distributed.world_size()
        for _ in steps:
            with distributed.agreed():
                features, labels = (torch.cat(parts) for parts in zip(*islice(own, each), strict=True))
            yield distributed.gathered(features), distributed.gathered(labels)

    def step(batch: tuple[Tensor, Tensor], progress: float) -> StepResult:
        features, labels = batch
        logits = probes(features)
        # A rate too high takes its classifier beyond all numbers: it stays there, and stops the others only if all are there.
        alive = logits.isfinite().all(dim=(1, 2), keepdim=True)
        logits = torch.where(alive | ~alive.any(), logits, 0.0)
        losses = [cross_entropy(each.float(), labels) for each in logits]
        return StepResult(torch.stack(losses).sum())  # none sees another's gradient

    def predictions() -> Predictions:
        with torch.no_grad():
            logits = torch.cat([probes(part.to(device)).float().cpu() for part in val_features.split(4096)], dim=1)
        best = int((logits.argmax(dim=2) == val_labels).sum(dim=1).argmax())
        return Predictions(logits[best], val_labels, {"rate": config.rates[best]})

    task = task_over(
        sampler,
        model=probes,
        optimizer=build_lars(cast(list[nn.Linear], list(probes.heads)), config.rates, config.optim),
        step=step,
        batches=batches,
        optim=config.optim,
        settings=settings,
    )
    log = ValidationLog(probes, predictions, out, source.classes, settings.epochs, config.validate_every)
    train(task, replace(settings, micro_batches=1), out, [log], resume=resume)
    return final_metrics(out)
