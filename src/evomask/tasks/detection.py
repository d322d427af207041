"""Detection: a Mask R-CNN on the encoder is trained, and judged by the average precision of its boxes and masks."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evomask.data.instance_crops import InstanceCrops, WholeInstanceImages, collate
from evomask.data.instances import InstanceSource
from evomask.data.loader import load_batches
from evomask.engine import distributed, parallel
from evomask.engine.loop import StepResult, TrainConfig, prepare_blocks, train, use_bfloat16
from evomask.engine.optim import OptimConfig, build_layer_decayed_adamw
from evomask.engine.samples import task_over
from evomask.models.detector import DETECTION_BLOCKS, Detector, DetectorConfig
from evomask.models.encoders import Encoder
from evomask.models.feature_pyramid import FeaturePyramid
from evomask.tasks.average_precision import check_can_be_measured
from evomask.tasks.detection_data import DetectionDataConfig
from evomask.tasks.detections import Detections, detect_all
from evomask.tasks.readable import check_readable
from evomask.tasks.validation_log import ValidationLog, final_metrics


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(DetectionDataConfig):
    """What to detect objects in, and how to learn to.

    Attributes:
        scale: range of the random factor by which an image is scaled beyond fitting the square, where it is then cropped
            (large-scale jitter); 1 1 only fits it.
        flip: whether images are mirrored at random.
        frozen: keep the encoder as it is, and train only what stands on it.
        window: side in patches of the windows in which a ViT attends, but in the last block of each quarter; none: no windows.
        drop_path: stochastic depth rate of the last block.
        layer_decay: a block's rate over the next one's.
        validate_every: epochs from one validation to the next.
        judge_training: measure AP on the training images, too, when all is over: train_box_AP and so on.
        detector: what stands on the encoder.
        optim: AdamW and its schedule; rates are at a batch of 256.
        loop: how long and how to train.
    """

    scale: tuple[float, float] = (0.1, 2.0)
    flip: bool = True
    frozen: bool = False
    window: int | None = None
    drop_path: float = 0.1
    layer_decay: float = 0.75
    validate_every: int = 4
    judge_training: bool = False
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=4.8e-3, warmup_epochs=0.15, betas=(0.9, 0.999), decay="steps")
    )
    loop: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=12, batch_size=16))

    def __post_init__(self):
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"--scale is a range of factors above 0, the smaller first, not {self.scale[0]} {self.scale[1]}")
        for name in ("image_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")


def detection(encoder: Encoder, config: DetectionConfig, out: Path, resume: bool = False) -> dict[str, float]:
    """Average precision of a Mask R-CNN on `encoder`, in percent: `box_AP`, `mask_AP`, `box_AP50`, and more.

    Args:
        encoder: its model is changed.
        config: how.
        out: the folder, for checkpoints, curves, validation.jsonl, detections.json and classes.json.
        resume: go on from the newest checkpoint.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: images, annotations or an encoder that cannot be used; what measures AP is not installed.
    """
    check_can_be_measured()
    settings = config.loop
    source, val = config.sources(encoder.in_chans)
    device = distributed.pick_device(settings.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        pyramid = FeaturePyramid(
            encoder.model,
            (config.image_size, config.image_size),
            blocks=DETECTION_BLOCKS,
            drop_path=config.drop_path,
            window=config.window,
            frozen=config.frozen,
        )
        detector = Detector(pyramid, len(source.classes), config.image_size, encoder.mean, encoder.std, config.detector).to(
            device
        )
    prepare_blocks(detector, settings)
    if not resume and config.val is not None:
        check_readable(WholeInstanceImages(val, config.image_size), config.workers)
    dataset = InstanceCrops(source, config.image_size, encoder.in_chans, settings.seed, config.scale, config.flip)
    if settings.parallel == "fsdp":
        parallel.shard(detector, device, half=use_bfloat16(settings.precision, device))
    sampler = distributed.shared_out(len(source), settings.batch_size, settings.seed, settings.micro_batches)

    def batches(steps: range) -> Iterator[Any]:
        return load_batches(dataset, sampler(steps), config.workers, device.type, collate)

    task = task_over(
        sampler,
        model=detector,
        optimizer=build_layer_decayed_adamw(detector, config.optim, config.layer_decay, encoder=pyramid.encoder),
        step=DetectionStep(detector, device),
        batches=batches,
        optim=config.optim,
        settings=settings,
    )

    def detections(of: InstanceSource, title: str) -> Detections:
        each = max(1, settings.batch_size // distributed.parts_of_a_batch(settings.micro_batches))
        looks = {"device": device, "batch_size": each, "workers": config.workers}
        return detect_all(detector.eval(), of, config.image_size, title, **looks)

    log = ValidationLog(
        detector,
        lambda: detections(val, "validation images"),
        out,
        source.classes,
        settings.epochs,
        config.validate_every,
    )
    train(task, settings, out, [log], resume=resume)
    metrics = final_metrics(out)
    if config.judge_training:
        seen = detections(source, "training images")
        metrics |= {f"train_{name}": value for name, value in distributed.from_first(seen.metrics).items()}
    return metrics


class DetectionStep:
    """A step of training a detector."""

    def __init__(self, detector: Detector, device: torch.device):
        self._detector, self._device = detector, device

    def __call__(self, batch: tuple[list[Tensor], list[dict[str, Tensor]], Tensor], progress: float) -> StepResult:
        """The sum of the losses of one micro-batch: class, box and mask of objects, and those of the region proposals."""
        images = [image.to(self._device, non_blocking=True) for image in batch[0]]
        targets = [{name: tensor.to(self._device, non_blocking=True) for name, tensor in target.items()} for target in batch[1]]
        losses = self._detector(images, targets)
        return StepResult(torch.stack(list(losses.values())).sum(), partial(_numbers, losses))


def _numbers(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: loss.item() for name, loss in losses.items()}
