"""`evomask show`: image files and a model, or a run -> one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from evomask.analysis.snapshot import load_images, load_snapshots
from evomask.data.decode import UnreadableImage, decode
from evomask.data.labelled import fit
from evomask.engine.metrics import read_metrics
from evomask.engine.pretrain import PretrainConfig, normalise
from evomask.engine.run import read_run
from evomask.figures.curves import loss_curve
from evomask.figures.masks import mask_stages
from evomask.figures.show import show_attention, show_hierarchy, show_masks, show_reconstruction
from evomask.figures.tokens import token_reconstructions
from evomask.models.encoders import Encoder
from evomask.recipes.launch import load_host
from evomask.recipes.tokenizer import is_tokenizer_run, load_trained, restored_from_tokens

ENCODER_PICTURES: dict[str, Callable[..., Figure]] = {
    "masks": show_masks,
    "hierarchy": show_hierarchy,
    "attention": show_attention,
}
"""Pictures that an encoder alone is enough for: (tap on an encoder, normalised images, images) -> figure."""


MOST_STAGES = 7


def draw_stages(run: Path) -> Figure:
    """Masks of the same images of a run's training set at several stages of its training.

    Raises:
        ValueError: no such run, or it has no snapshot yet.
    """
    read_run(run, PretrainConfig)
    snapshots = load_snapshots(run / "snapshots", MOST_STAGES)
    if not snapshots:
        raise ValueError(f"{run} has no snapshot yet: `evomask resume {run}` goes on with it")
    images, _ = load_images(run / "snapshots" / "images.safetensors")
    return mask_stages(images, snapshots)


def draw_loss(run: Path) -> Figure:
    """The loss of a run by step.

    Raises:
        ValueError: no such run, or it has logged nothing yet.
    """
    read_run(run, PretrainConfig)
    metrics = read_metrics(run)
    if not metrics:
        raise ValueError(f"{run} has logged no step yet: `evomask resume {run}` goes on with it")
    return loss_curve(metrics)


RUN_PICTURES: dict[str, Callable[[Path], Figure]] = {"stages": draw_stages, "loss": draw_loss}
"""Pictures of a run, of images that it kept itself."""


def draw_encoder_picture(picture: str, encoder: Encoder, paths: Sequence[Path]) -> Figure:
    """One of ENCODER_PICTURES, of image files.

    Raises:
        ValueError: a file is not there or no image, or it is not known how to ask the encoder for its attention.
    """
    tap = encoder.tap
    images = read_images(paths, encoder.image_size, encoder.in_chans)
    return ENCODER_PICTURES[picture](tap, normalise(images, encoder.mean, encoder.std), images)


def draw_reconstruction(run: Path, paths: Sequence[Path]) -> Figure:
    """What the newest weights of a run restore of image files; of a tokenizer, what is left of them in their tokens.

    Raises:
        ValueError: no such run, or a file is not there or no image.
    """
    if is_tokenizer_run(run):
        return _draw_tokens(run, paths)
    host, config = load_host(run)
    images = read_images(paths, config.host.encoder.image_size, config.host.encoder.in_chans)
    mean, std = config.data.mean, config.data.std
    return show_reconstruction(host, normalise(images, mean, std), images, mean, std)


def _draw_tokens(run: Path, paths: Sequence[Path]) -> Figure:
    tokenizer, config = load_trained(run)
    images = read_images(paths, config.image_size, config.model.in_chans)
    restored, ids = restored_from_tokens(tokenizer, images)
    return token_reconstructions(images, restored, (ids.shape[1], ids.shape[2]))


def read_images(paths: Sequence[Path], size: tuple[int, int], channels: int) -> Tensor:
    """(n, C, H, W) uint8, each scaled to cover the size and cut around its centre."""
    images = []
    for path in paths:
        if not path.is_file():
            raise ValueError(f"there is no image file {path}")
        try:
            images.append(fit(decode(path.read_bytes(), channels), size))
        except UnreadableImage as error:
            raise ValueError(f"{path} cannot be read: {error}") from error
    return torch.stack(images)
