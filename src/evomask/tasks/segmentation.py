"""Segmentation: the class of every pixel, by UperNet on an encoder that is trained on, or frozen.

The defaults are the benchmark's on ADE20K for MAE's ViT-B (mmsegmentation, configs/mae/mae-base_upernet), as far as the paper
names them (Section V-B) its own: 512 px, 160K iterations of 16 images, test by a sliding window.
"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate
from torch.utils.data import Subset
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from evomask.data.image_masks import IGNORED, ClassMaskSource, ImageMaskFolders, WholeImages
from evomask.data.loader import in_order, load_batches
from evomask.data.segmentation_crops import SegmentationCrops, fitting_size
from evomask.data.spread import spread
from evomask.engine import distributed
from evomask.engine.loop import StepResult, TrainConfig, prepare_blocks, train
from evomask.engine.optim import OptimConfig, build_layer_decayed_adamw
from evomask.engine.pretrain import normalise
from evomask.engine.progress import ProgressBar
from evomask.engine.samples import task_over
from evomask.engine.shared_norm import share_batch_norms
from evomask.models.encoders import Encoder
from evomask.models.feature_pyramid import SEGMENTATION_BLOCKS, FeaturePyramid
from evomask.models.segmenter import Segmenter
from evomask.tasks.classification import PREDICTIONS
from evomask.tasks.readable import check_readable
from evomask.tasks.segmentation_data import SegmentationDataConfig
from evomask.tasks.segmentation_metrics import ClassScores, Example, Segmentations, confusion_of
from evomask.tasks.sliding_window import sliding_logits
from evomask.tasks.validation_log import ValidationLog, final_metrics

EXAMPLES = 6
"""Validation images of which the prediction is kept, to be looked at."""


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(SegmentationDataConfig):
    """What to learn to segment, and how.

    Attributes:
        crop: height and width in pixels of what is trained on, and of the window in the test.
        sides: the shorter and the longer side that images are scaled to fit into, their shape kept.
        scale: range of the factor on these in training.
        largest_share: of a crop's labelled pixels, one class should have at most this much.
        distortion: whether colours are distorted in training.
        stride: from one window to the next in the test.
        frozen: keep the encoder as it is, and train only what reads its maps.
        blocks: after which four blocks of a ViT of 12, from 0, maps are taken; of another depth, in proportion.
        head_channels: of UperNet's maps.
        auxiliary_channels: of the head on the third map, which only helps in training.
        auxiliary_weight: of its loss.
        drop_path: stochastic depth rate of the encoder's last block.
        layer_decay: a block's rate over the next one's.
        iterations_per_epoch: count so many steps as one epoch, instead of a pass over the images: 10 epochs of 16,000 are 160K
            iterations. Warm-up and validation go by it, too.
        validate_every: epochs from one validation to the next.
        optim: AdamW and its schedule; rates are at a batch of 256.
        loop: how long and how to train.
    """

    crop: tuple[int, int] = (512, 512)
    sides: tuple[int, int] = (512, 2048)
    scale: tuple[float, float] = (0.5, 2.0)
    largest_share: float = 0.75
    distortion: bool = True
    stride: tuple[int, int] = (341, 341)
    frozen: bool = False
    blocks: tuple[int, int, int, int] = SEGMENTATION_BLOCKS
    head_channels: int = 768
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4
    drop_path: float = 0.1
    layer_decay: float = 0.65
    iterations_per_epoch: int | None = 16_000
    validate_every: int = 1
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(base_lr=1.6e-3, warmup_epochs=0.09375, decay="linear", betas=(0.9, 0.999))
    )
    loop: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10, batch_size=16))

    def __post_init__(self):
        sizes = {"crop": self.crop, "sides": self.sides, "stride": self.stride, "validate-every": (self.validate_every,)}
        sizes |= {"iterations-per-epoch": (self.iterations_per_epoch or 1,)}
        sizes |= {"head-channels": (self.head_channels,), "auxiliary-channels": (self.auxiliary_channels,)}
        for name, values in sizes.items():
            if min(values) < 1:
                raise ValueError(f"--{name} must be at least 1, not {min(values)}")
        if any(step > side for step, side in zip(self.stride, self.crop, strict=True)):
            raise ValueError(f"--stride {self.stride} leaves pixels out between windows of {self.crop}: choose a smaller one")
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"--scale is a range of factors above 0, not {self.scale}")
        if self.loop.parallel != "ddp":
            raise ValueError(
                "processes segment unequally many windows, each with the whole model: leave --loop.parallel at ddp"
            )
        at_a_time = self.loop.batch_size // self.loop.micro_batches * distributed.world_size()
        if min(at_a_time, self.loop.batch_size) < 2:
            raise ValueError(
                "UperNet pools images to a single pixel and norms it over the batch, which takes at least 2 images at a time: "
                "raise --loop.batch-size, or lower --loop.micro-batches"
            )


def segmentation(encoder: Encoder, config: SegmentationConfig, out: Path, resume: bool = False) -> dict[str, Any]:
    """How well UperNet on `encoder` names the class of each pixel, in percent: `mIoU`, `aAcc`, `mAcc`, and both of each class.

    Counts are over all validation images together. Means are over the classes that are there.

    Args:
        encoder: its model is changed.
        config: how.
        out: the folder, for checkpoints, curves, validation.jsonl and predictions.safetensors.
        resume: go on from the newest checkpoint.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: images or masks that cannot be used, an encoder that cannot be trained.
    """
    settings = config.loop
    source, val = config.sources(encoder)
    if not resume and isinstance(val, ImageMaskFolders):
        check_readable(WholeImages(val), config.workers)
    device = distributed.pick_device(settings.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        pyramid = FeaturePyramid(
            encoder.model, config.crop, blocks=config.blocks, drop_path=config.drop_path, frozen=config.frozen
        )
        segmenter = Segmenter(pyramid, len(source.classes), config.head_channels, config.auxiliary_channels)
    share_batch_norms(segmenter)
    segmenter.to(device)
    prepare_blocks(segmenter, settings)
    dataset = SegmentationCrops(
        source,
        config.crop,
        config.sides,
        settings.seed,
        config.scale,
        config.largest_share,
        fill=[round(255 * mean) for mean in encoder.mean],
        distort=config.distortion,
    )
    sampler = distributed.shared_out(len(source), settings.batch_size, settings.seed, settings.micro_batches)

    def batches(steps: range) -> Iterator[Any]:
        return load_batches(dataset, sampler(steps), config.workers, device.type)

    task = task_over(
        sampler,
        model=segmenter,
        optimizer=build_layer_decayed_adamw(segmenter, config.optim, config.layer_decay, pyramid.encoder),
        step=SegmentationStep(segmenter, encoder, config.auxiliary_weight),
        batches=batches,
        optim=config.optim,
        settings=settings,
        steps_per_epoch=config.iterations_per_epoch,
    )

    def findings() -> Segmentations:
        return segment_all(segmenter, val, encoder, config, device)

    log = ValidationLog(segmenter, findings, out, source.classes, settings.epochs, config.validate_every)
    train(task, settings, out, [log], resume=resume)
    found = distributed.from_first(lambda: Segmentations.load(out / PREDICTIONS)[0].confusion)
    return final_metrics(out) | ClassScores.of(found).by_class(source.classes)


class SegmentationStep:
    """One micro-batch of `SegmentationCrops` -> loss of both heads. Pixels without a label count as 0."""

    def __init__(self, segmenter: Segmenter, encoder: Encoder, auxiliary_weight: float):
        self._segmenter, self._mean, self._std = segmenter, encoder.mean, encoder.std
        self._auxiliary_weight = auxiliary_weight

    def __call__(self, batch: tuple[Tensor, Tensor, Tensor], progress: float) -> StepResult:
        """The loss of one micro-batch, a mean over all its pixels: so it is the same however a batch is shared out."""
        device = next(self._segmenter.parameters()).device
        images_uint8, labels, _ = (tensor.to(device, non_blocking=True) for tensor in batch)
        logits = self._segmenter.with_auxiliary(normalise(images_uint8, self._mean, self._std))
        main, auxiliary = (_mean_over_pixels(each, labels.long()) for each in logits)
        return StepResult(main + self._auxiliary_weight * auxiliary, lambda: {"main_loss": main.item()})


def _mean_over_pixels(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum") / labels.numel()


@torch.no_grad()
def segment_all(
    segmenter: Segmenter, source: ClassMaskSource, encoder: Encoder, config: SegmentationConfig, device: torch.device
) -> Segmentations:
    """What a segmenter makes of all images of a source, which are shared out among the processes there are.

    Args:
        segmenter: in evaluation mode.
        source: images with masks.
        encoder: for how images are normalised.
        config: for the size of images, window and stride.
        device: to compute on.
    """
    classes = len(source.classes)
    own = range(distributed.rank(), len(source), distributed.world_size())
    confusion = torch.zeros(classes, classes, dtype=torch.long)
    pairs = WholeImages(source)
    with distributed.agreed(), closing(ProgressBar("validation images", len(own))) as bar:
        for done, (image, labels) in enumerate(in_order(Subset(pairs, own), None, config.workers), start=1):
            example = _segment(segmenter, image, labels, encoder, config, device)
            confusion += confusion_of(example.predicted, example.labels, classes)
            bar.update(done)
    if distributed.world_size() > 1:
        torch.distributed.all_reduce(confusion)
    if not confusion.any():
        raise ValueError(f"no pixel of the {len(source)} validation images has a label: see --ignored")

    @torch.no_grad()
    def examples() -> list[Example]:
        return [_segment(segmenter, *pairs[index], encoder, config, device) for index in spread(EXAMPLES, len(source))]

    return Segmentations(confusion, examples)


def _segment(
    segmenter: Segmenter, image: Tensor, labels: Tensor, encoder: Encoder, config: SegmentationConfig, device: torch.device
) -> Example:
    """One image, scaled for the segmenter, and its logits scaled back to be judged at every pixel."""
    size = fitting_size(image, config.sides)
    resized = functional.resize(image, list(size), interpolation=v2.InterpolationMode.BILINEAR, antialias=True)
    images = normalise(resized.unsqueeze(0).to(device), encoder.mean, encoder.std)
    logits = sliding_logits(segmenter, images, config.crop, config.stride)
    predicted = interpolate(logits, labels.shape, mode="bilinear", align_corners=False).argmax(dim=1)[0]
    return Example(image, labels, predicted.cpu())
