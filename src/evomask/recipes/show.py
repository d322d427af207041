"""`evomask show`: image files and a model -> one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from evomask.data.decode import UnreadableImage, decode
from evomask.data.labelled import fit
from evomask.engine.pretrain import normalise
from evomask.figures.show import show_attention, show_hierarchy, show_masks, show_reconstruction
from evomask.models.encoders import Encoder
from evomask.recipes.launch import load_host

ENCODER_PICTURES: dict[str, Callable[..., Figure]] = {
    "masks": show_masks,
    "hierarchy": show_hierarchy,
    "attention": show_attention,
}
"""Pictures that an encoder alone is enough for: (encoder, normalised images, images) -> figure."""


def draw_encoder_picture(picture: str, encoder: Encoder, paths: Sequence[Path]) -> Figure:
    """One of ENCODER_PICTURES, of image files.

    Raises:
        ValueError: a file is not there or no image.
    """
    images = read_images(paths, encoder.image_size, encoder.in_chans)
    return ENCODER_PICTURES[picture](encoder.model, normalise(images, encoder.mean, encoder.std), images)


def draw_reconstruction(run: Path, paths: Sequence[Path]) -> Figure:
    """What the newest weights of a run restore of image files.

    Raises:
        ValueError: no such run, or a file is not there or no image.
    """
    host, config = load_host(run)
    images = read_images(paths, config.host.encoder.image_size, config.host.encoder.in_chans)
    mean, std = config.data.mean, config.data.std
    return show_reconstruction(host, normalise(images, mean, std), images, mean, std)


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
