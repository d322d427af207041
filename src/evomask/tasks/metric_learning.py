"""Learning to tell things apart by their descriptors: ArcFace on the classes of labelled images, as DELG does.

The defaults are those of DELG's global descriptor (Cao et al., 2020, and its training program): GeM, a linear layer to 2,048,
ArcFace of margin 0.1 and scale 45.25 (the root of 2,048), SGD at 0.01 falling to zero, ImageNet's crops.
"""

import importlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from evomask.data.images import ImageSource
from evomask.data.labelled_crops import LabelledCrops
from evomask.data.loader import load_batches
from evomask.engine import distributed
from evomask.engine.loop import StepResult, Task, TrainConfig, prepare_blocks, train
from evomask.engine.optim import build_sgd, linear_to_zero
from evomask.engine.pretrain import normalise
from evomask.models.descriptors import DescriptorPooling, GlobalDescriptor
from evomask.models.encoders import Encoder


@dataclass(frozen=True, kw_only=True)
class ArcFaceConfig:
    """How descriptors are learnt.

    Attributes:
        width: of a descriptor, to which a linear layer brings the pooled features.
        margin: in radians, that a descriptor has to be nearer to its own class.
        scale: what cosines are multiplied by before the softmax.
        lr: learning rate at the first step, whatever the batch size; it falls linearly to 0.
        momentum: of SGD.
        clip_grad: largest gradient norm.
        crop_scale: range of the share of an image's area that a random crop takes.
        image_size: height and width of a crop in pixels, to which positions are interpolated. None: the encoder's.
    """

    width: int = 2048
    margin: float = 0.1
    scale: float = 45.25
    lr: float = 0.01
    momentum: float = 0.9
    clip_grad: float = 10.0
    crop_scale: tuple[float, float] = (0.08, 1.0)
    image_size: tuple[int, int] | None = None

    def __post_init__(self):
        if self.width < 1 or self.scale <= 0 or not 0 <= self.margin < math.pi:
            raise ValueError(
                "ArcFace needs a width of at least 1, a scale above 0 and a margin in radians from 0 to below pi, "
                f"not {self.width}, {self.scale} and {self.margin}"
            )


def learn_descriptor(
    encoder: Encoder,
    source: ImageSource,
    pooling: DescriptorPooling,
    power: float,
    config: ArcFaceConfig,
    loop: TrainConfig,
    workers: int,
    out: Path,
    resume: bool,
) -> GlobalDescriptor:
    """The encoder with a linear layer on top of it, all of it trained, for images of the size of the crops.

    Args:
        encoder: its model is changed.
        source: images of at least two classes.
        pooling: see `GlobalDescriptor`.
        power: see there.
        config: how.
        loop: how long.
        workers: processes that load images.
        out: the folder, for checkpoints and curves.
        resume: go on from the newest checkpoint.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: images that cannot be learnt from, an encoder that cannot be trained, or a library that is missing.
    """
    if len(source.classes) < 2:
        raise ValueError("to learn descriptors takes images of at least 2 classes: put those of each in a folder of its own")
    device = distributed.pick_device(loop.device)
    if config.image_size is not None:
        encoder = encoder.resized(config.image_size)
    timm_model: Any = encoder.model
    timm_model.reset_classifier(0)  # of what has no gradient several processes would wait for one
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(loop.seed)
        descriptor = GlobalDescriptor(encoder, pooling, power, config.width)
        arcface = _arcface_loss(len(source.classes), config)
    model = nn.ModuleDict({"descriptor": descriptor, "arcface": arcface}).requires_grad_(True).to(device)
    prepare_blocks(descriptor, loop)
    dataset = LabelledCrops(source, encoder.image_size, encoder.in_chans, loop.seed, config.crop_scale)
    sampler = distributed.shared_out(len(source), loop.batch_size, loop.seed, loop.micro_batches)

    def batches(steps: range) -> Iterator[Any]:
        return load_batches(dataset, sampler(steps), workers, device.type)

    def step(batch: tuple[Tensor, Tensor, Tensor], progress: float) -> StepResult:
        images_uint8, labels, _ = (tensor.to(device, non_blocking=True) for tensor in batch)
        found = descriptor(normalise(images_uint8, encoder.mean, encoder.std))
        with torch.autocast(device.type, enabled=False):  # a margin of 0.1 is lost among the angles that bfloat16 knows
            return StepResult(arcface(found.float(), labels))

    steps_per_epoch = sampler(range(0)).steps_per_epoch
    task = Task(
        model=model,
        optimizer=build_sgd(model, config.momentum),
        learning_rate=partial(linear_to_zero, lr=config.lr, steps=loop.epochs * steps_per_epoch),
        samples=len(source),
        steps_per_epoch=steps_per_epoch,
        batches=batches,
        indices=lambda step: sampler(range(0)).indices(step),
        step=step,
        clip_grad=config.clip_grad,
    )
    train(task, loop, out, resume=resume)
    return descriptor


def _arcface_loss(classes: int, config: ArcFaceConfig) -> nn.Module:
    try:
        losses = importlib.import_module("pytorch_metric_learning.losses")
    except ImportError as error:
        raise ValueError("ArcFace is pytorch-metric-learning's: pip install 'evomask[retrieval]'") from error
    return losses.ArcFaceLoss(classes, config.width, margin=math.degrees(config.margin), scale=config.scale)
