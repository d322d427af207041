"""What a step of masked image modelling is, and what a pretraining run is configured by."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal, cast

import torch
import tyro
from torch import Tensor

from evomask.data.images import ImageSource
from evomask.data.layouts import open_images
from evomask.data.loader import load_batches
from evomask.data.pretraining import PretrainingImages
from evomask.data.scenes import Scenes
from evomask.engine import distributed, parallel
from evomask.engine.loop import StepResult, Task, TrainConfig, use_bfloat16
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.samples import task_over
from evomask.masking import STRATEGIES, Mask, MaskingStrategy, NonFiniteAffinity
from evomask.masking.evolved import Truncation
from evomask.masking.hierarchy import Linkage
from evomask.models.encoders import Encoder
from evomask.models.host import Host
from evomask.models.hosts import HostConfig
from evomask.models.normalisation import per_channel


@dataclass(frozen=True, kw_only=True)
class MaskingConfig:
    """Which masks. Options that a strategy does not have are not used by it.

    Attributes:
        strategy: evolved (the paper), random (MAE), grid, block (BEiT), cells (SimMIM).
        ratio: share of patches to hide.
        linkage: evolved: similarity to a merged node, weighted (Eq. 7) or average.
        affinity: evolved: attention (the paper), popularity, profile, mutual or either.
        depth: evolved: hold the depth at this share of the height (0.2 shallow, 0.8 deep) instead of letting it grow.
        depth_grows: evolved: with every epoch (the paper) or every step.
        truncation: evolved: what is taken of the last group, if all is too much: a subtree, or scattered patches.
        min_block: block: least area of a rectangle in patches.
        cell: cells: patches along the side of a cell.
        masks_per_tree: so many masks an image, which share its crop, its embedding and its tree. A batch of 256 masks then has
            256 / masks_per_tree images, and an epoch as many more steps.
    """

    strategy: str = "evolved"
    ratio: float = 0.75
    linkage: Linkage = "weighted"
    affinity: str = "attention"
    depth: float | None = None
    depth_grows: Literal["epoch", "step"] = "epoch"
    truncation: Truncation = "subtree"
    min_block: int = 16
    cell: int = 2
    masks_per_tree: int = 1

    def __post_init__(self):
        if self.strategy not in STRATEGIES:
            raise ValueError(f"--masking.strategy must be one of {', '.join(STRATEGIES)}, not {self.strategy!r}")
        if self.masks_per_tree < 1:
            raise ValueError(f"--masking.masks-per-tree must be at least 1, not {self.masks_per_tree}")
        self.build()  # so that what does not fit is said before anything is made

    def build(self) -> MaskingStrategy:
        """The strategy, with those options that it has."""
        strategy = STRATEGIES[self.strategy]
        return strategy(**{o.name: getattr(self, o.name) for o in fields(strategy) if hasattr(self, o.name)})


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are cropped.

    Attributes:
        root: a folder of images, flat or in sub-folders; a folder of parquet or tar shards, one of them, or a pattern such as
            'shards/train-*.tar'. None: the embedded `scenes`.
        scenes: how many scenes, where root is None.
        workers: processes that load images beside the training process; the images are the same for any number.
        crop_scale: range of the share of an image's area that a random crop takes.
        flip: whether crops are mirrored at random.
        mean: of a channel of images in [0, 1], to be subtracted; one number a channel.
        std: to divide by after that; one number a channel.
    """

    root: Path | None = None
    scenes: int = 10_000
    workers: int = 2
    crop_scale: tuple[float, float] = (0.2, 1.0)
    flip: bool = True
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        if self.workers < 0:
            raise ValueError(f"--data.workers must be at least 0, not {self.workers}")
        if any(value <= 0 for value in self.std):
            raise ValueError(f"--data.std is what channels are divided by, so above 0, not {self.std}")

    def source(self, size: tuple[int, int], channels: int, seed: int) -> ImageSource:
        """The images themselves."""
        if self.root is not None:
            return open_images(self.root, channels=channels)
        return Scenes(size, self.scenes, seed=seed, channels=channels)


@dataclass(frozen=True, kw_only=True)
class MonitorConfig:
    """What is measured while a model trains; it changes nothing of the training.

    Attributes:
        every: epochs between two looks, the first before training, one more at the end; 0: none.
        root: held-out images, a sub-folder for each class: each is classified by its nearest neighbours among the others. None:
            no labels are looked at, only what can be said without them is measured, on images of the training set; the
            embedded scenes have held-out ones of their own.
        images: at most so many of them, from all over the set. The accuracy on 1,000 has a standard error of up to 1.6 points.
    """

    every: int = 10
    root: Path | None = None
    images: int = 1_000

    def __post_init__(self):
        if self.every < 0:
            raise ValueError(f"--monitor.every must be at least 0, not {self.every}")
        if self.images < 2:
            raise ValueError(f"--monitor.images must be at least 2, not {self.images}")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A pretraining run: its recipe's name, and every value that determines it."""

    recipe: tyro.conf.Suppress[str]
    host: HostConfig
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    monitor: MonitorConfig = field(default_factory=MonitorConfig)

    def __post_init__(self):
        channels = self.host.encoder.in_chans
        if len(self.data.mean) != channels or len(self.data.std) != channels:
            raise ValueError(f"--data.mean and --data.std need one number for each of {channels} channels")
        if self.train.batch_size % self.masking.masks_per_tree:
            masks, batch = self.masking.masks_per_tree, self.train.batch_size
            raise ValueError(f"--masking.masks-per-tree {masks} does not divide a batch of {batch} masks")


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(B, C, H, W) uint8 -> float32: brought to [0, 1], less the mean, over the standard deviation, channel by channel."""
    mean_C11, std_C11 = (per_channel(tuple(values), images.device) for values in (mean, std))
    return images.float().div_(255).sub_(mean_C11).div_(std_C11)  # in place: fresh memory costs more than the arithmetic


@dataclass(frozen=True)
class PretrainStep:
    """A step of masked image modelling; it reads like the paper's abstract."""

    host: Host
    masking: MaskingStrategy
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self, batch: tuple[Tensor, Tensor, Tensor], progress: float) -> StepResult:
        """One micro-batch of `PretrainingImages` -> loss. A model that has diverged gives NaN, and the loop skips the step."""
        host, device = self.host, next(self.host.parameters()).device
        images_uint8, noise, _ = (tensor.to(device, non_blocking=True) for tensor in batch)
        images = normalise(images_uint8, self.mean, self.std)
        noise = noise.view(-1, host.grid[0] * host.grid[1])  # a row for each of an image's masks

        tokens = host.embed(images)
        affinity = host.affinity(tokens.detach()) if self.masking.needs_affinity else None
        spoilt = False
        try:
            mask = self.masking(noise, grid=host.grid, progress=progress, affinity=affinity)
        except NonFiniteAffinity:
            # Any mask will do for a step that is left out; but other processes wait for this one's gradients.
            spoilt = True
            mask = self.masking(noise, grid=host.grid, progress=progress, affinity=torch.zeros_like(cast(Tensor, affinity)))
        del affinity  # room for the training pass
        masks_per_image = len(noise) // len(images)
        if masks_per_image > 1:
            images, tokens = (each.repeat_interleave(masks_per_image, dim=0) for each in (images, tokens))
        loss = host(images, tokens, mask).loss
        return StepResult(loss * torch.nan if spoilt else loss, partial(mask_metrics, mask))


def mask_metrics(mask: Mask) -> dict[str, float]:
    """What is logged of a batch's masks; of evolved ones also the health of the trees they are cut from, means over images.

    Returns:
        `mask_ratio`, and for evolved masks `depth`, `tree_height`, `groups` (how many at that depth) and `largest_group` (its
        share of the image's patches).
    """
    row = {"mask_ratio": mask.count / mask.masked.shape[1]}
    if mask.hierarchy is None or mask.depth is None:
        return row
    size_BM = mask.hierarchy.group_sizes(mask.depth)
    return row | {
        "depth": mask.depth.double().mean().item(),
        "tree_height": mask.hierarchy.height.double().mean().item(),
        "groups": size_BM.gt(0).sum(dim=1).double().mean().item(),
        "largest_group": size_BM.amax(dim=1).double().mean().item() / mask.hierarchy.patches,
    }


def build_host(config: PretrainConfig) -> Host:
    """The host with the initial weights of the run: a function of the configuration's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.train.seed)
        host = config.host.build()
    host.mean, host.std = config.data.mean, config.data.std
    return host


def encoder_of_host(host: Host, config: PretrainConfig, name: str) -> Encoder:
    """The encoder of a run, whose host it shares its weights with; that is put into evaluation mode."""
    return Encoder.of(host.encoder, config.data.mean, config.data.std, name, getattr(config.host, "cell", None))


def pretraining_task(config: PretrainConfig, host: Host) -> Task:
    """What the loop has to be told to train `host` as configured; the host goes to its device. Nothing is written yet.

    Raises:
        ValueError: the data or the device cannot be used.
    """
    vit, settings = config.host.encoder, config.train
    source = config.data.source(vit.image_size, vit.in_chans, settings.seed)
    rows, columns = host.grid
    dataset = PretrainingImages(
        source,
        vit.image_size,
        channels=vit.in_chans,
        patches=config.masking.masks_per_tree * rows * columns,
        seed=settings.seed,
        scale=config.data.crop_scale,
        flip=config.data.flip,
    )

    masking = config.masking.build()
    even = torch.arange(rows * columns).unsqueeze(0) / (rows * columns)
    # Whether it fits the grid only a mask tells, and in the first step there is a folder for the run already.
    masking(even, grid=host.grid, affinity=torch.zeros(1, rows * columns, rows * columns) if masking.needs_affinity else None)

    images_a_step = settings.batch_size // config.masking.masks_per_tree
    sampler = distributed.shared_out(len(source), images_a_step, settings.seed, settings.micro_batches)

    device = distributed.pick_device(settings.device)
    host.to(device)
    if settings.checkpoint_activations:
        parallel.checkpoint_activations(host)
    if settings.compile == "on" or (settings.compile == "auto" and device.type == "cuda"):
        host.compile(dynamic=False)  # traced for sizes that may change, a Swin takes minutes to compile
    if settings.parallel == "fsdp":
        parallel.shard(host, device, half=use_bfloat16(settings.precision, device))
    task = task_over(
        sampler,
        model=host,
        optimizer=build_adamw(host, config.optim),
        step=PretrainStep(host, masking, config.data.mean, config.data.std),
        batches=lambda steps: load_batches(dataset, sampler(steps), config.data.workers, device.type),
        optim=config.optim,
        settings=settings,
    )
    return replace(task, progress_by_step=config.masking.depth_grows == "step")
