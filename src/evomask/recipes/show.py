"""`evomask show`: image files and models, or runs -> one picture."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from evomask.analysis.attention_distance import distance_by_block_and_head
from evomask.analysis.gradient_by_depth import mean_gradients
from evomask.analysis.mask_difficulty import loss_by_depth
from evomask.analysis.matching import match_patches
from evomask.analysis.snapshot import load_images, load_snapshots
from evomask.analysis.tree_health import health_by_stage
from evomask.data.decode import UnreadableImage, decode
from evomask.data.labelled import fit
from evomask.engine.metrics import read_metrics
from evomask.engine.pretrain import PretrainConfig, normalise
from evomask.engine.run import read_run
from evomask.figures import show
from evomask.figures.attention_distance import attention_distances
from evomask.figures.curves import loss_curve
from evomask.figures.gradient_by_depth import gradients_by_depth
from evomask.figures.mask_difficulty import mask_difficulty
from evomask.figures.masks import mask_stages
from evomask.figures.matches import matched_patches
from evomask.figures.style import LINES
from evomask.figures.tokens import token_reconstructions
from evomask.figures.tree_health import tree_health_curves
from evomask.masking import EvolvedMasking
from evomask.recipes.evaluation import encoder_of
from evomask.recipes.launch import load_host
from evomask.recipes.tokenizer import is_tokenizer_run, load_trained, restored_from_tokens

MOST_STAGES = 7
MOST_HEALTH_STAGES = 40
MOST_MATCHES = 40
DEPTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99)

Draw = Callable[[Sequence[str], Sequence[Path]], Figure]


@dataclass(frozen=True)
class Picture:
    """What `evomask show` can draw.

    Attributes:
        draw: (specs of encoders, or folders of runs; image files) -> figure.
        of_images: whether it takes image files.
        several: whether it compares several encoders.
    """

    draw: Draw
    of_images: bool = True
    several: bool = False


def draw_picture(name: str, encoders: Sequence[str], paths: Sequence[Path]) -> Figure:
    """One of PICTURES.

    Args:
        name: of the picture.
        encoders: specs; of pictures of a run, its folder.
        paths: image files.

    Raises:
        ValueError: a file is not there or no image, an encoder cannot be used, or the picture is not of so many of them.
    """
    picture = PICTURES[name]
    if not encoders:
        raise ValueError("name an --encoder")
    if len(encoders) > 1 and not picture.several:
        several = ", ".join(name for name, each in PICTURES.items() if each.several)
        raise ValueError(f"{name} is of one --encoder; several are compared by {several}")
    if len(encoders) > len(LINES):
        raise ValueError(f"one picture compares at most {len(LINES)} --encoder, not {len(encoders)}")
    if paths and not picture.of_images:
        raise ValueError(f"{name} takes no image files: it shows the run alone")
    if picture.of_images and not paths:
        raise ValueError("name one or more image files")
    return picture.draw(encoders, paths)


def _of_tap(draw: Callable[..., Figure]) -> Draw:
    """A picture for which it is enough to ask an encoder for its attention."""

    def draw_encoder(encoders: Sequence[str], paths: Sequence[Path]) -> Figure:
        encoder = encoder_of(encoders[0])
        tap = encoder.tap
        images = read_images(paths, encoder.image_size, encoder.in_chans)
        return draw(tap, normalise(images, encoder.mean, encoder.std), images)

    draw_encoder.__doc__ = draw.__doc__
    return draw_encoder


def _of_heads(draw: Callable[..., Figure]) -> Draw:
    """A picture of the heads of a plain ViT."""

    def draw_encoder(encoders: Sequence[str], paths: Sequence[Path]) -> Figure:
        encoder = encoder_of(encoders[0])
        vit = encoder.plain_vit()
        images = read_images(paths, encoder.image_size, encoder.in_chans)
        return draw(vit, normalise(images, encoder.mean, encoder.std), images)

    draw_encoder.__doc__ = draw.__doc__
    return draw_encoder


def draw_matches(encoders: Sequence[str], paths: Sequence[Path]) -> Figure:
    """Patches of two image files that look alike to an encoder, joined by lines."""
    if len(paths) != 2:
        raise ValueError(f"matches are between two image files, not {len(paths)}")
    encoder = encoder_of(encoders[0])
    images = read_images(paths, encoder.image_size, encoder.in_chans)
    found = match_patches(encoder, normalise(images, encoder.mean, encoder.std), MOST_MATCHES)
    return matched_patches(images, found.first, found.second, found.grid, found.similarity)


def draw_reconstruction(runs: Sequence[str], paths: Sequence[Path]) -> Figure:
    """What a run restores of image files behind masks of its ratio; of a tokenizer, what is left of them in their tokens."""
    if is_tokenizer_run(Path(runs[0])):
        return _draw_tokens(Path(runs[0]), paths)
    host, config = load_host(Path(runs[0]))
    images = read_images(paths, config.host.encoder.image_size, config.host.encoder.in_chans)
    mean, std = config.data.mean, config.data.std
    masking = _evolved_as_in(config)
    return show.show_reconstruction(host, normalise(images, mean, std), images, mean, std, masking=masking)


def _evolved_as_in(config: PretrainConfig) -> EvolvedMasking:
    """Masks of the ratio that the run has learnt with, and where its masks evolved, of its trees; of any depth."""
    masking = config.masking
    return EvolvedMasking(masking.ratio, masking.linkage, masking.affinity, truncation=masking.truncation)


def _draw_tokens(run: Path, paths: Sequence[Path]) -> Figure:
    tokenizer, config = load_trained(run)
    images = read_images(paths, config.image_size, config.model.in_chans)
    restored, ids = restored_from_tokens(tokenizer, images)
    return token_reconstructions(images, restored, (ids.shape[1], ids.shape[2]))


def draw_distance(encoders: Sequence[str], paths: Sequence[Path]) -> Figure:
    """How far the heads of each block look; several encoders on one page."""
    distances, grids = {}, []
    for spec in encoders:
        encoder = encoder_of(spec)
        vit = encoder.plain_vit()
        images = normalise(read_images(paths, encoder.image_size, encoder.in_chans), encoder.mean, encoder.std)
        distances[spec] = distance_by_block_and_head(vit, images)
        grids.append((vit.patch_embed.grid_size, vit.patch_embed.patch_size[0]))
    if len(set(grids)) > 1:
        raise ValueError("distances are compared on one grid of patches: choose encoders of one image and patch size")
    return attention_distances(distances, *grids[0])


def draw_difficulty(runs: Sequence[str], paths: Sequence[Path]) -> Figure:
    """The loss of a run's model behind masks of every depth and its own ratio; several runs on one page."""
    losses = {}
    for run in runs:
        host, config = load_host(Path(run))
        images = read_images(paths, config.host.encoder.image_size, config.host.encoder.in_chans)
        normalised = normalise(images, config.data.mean, config.data.std)
        noise = show.image_noise(len(images), host.grid, seed=0)
        losses[run] = loss_by_depth(host, normalised, noise, DEPTHS, _evolved_as_in(config))
    return mask_difficulty(losses, DEPTHS)


def draw_stages(runs: Sequence[str], _: Sequence[Path]) -> Figure:
    """Masks of the same images of a run's training set at several stages of its training."""
    run = Path(runs[0])
    read_run(run, PretrainConfig)
    snapshots = load_snapshots(run / "snapshots", MOST_STAGES)
    if not snapshots:
        raise ValueError(f"{run} has no snapshot yet: `evomask resume {run}` goes on with it")
    images, _names = load_images(run / "snapshots" / "images.safetensors")
    return mask_stages(images, snapshots)


def draw_health(runs: Sequence[str], _: Sequence[Path]) -> Figure:
    """Health of the trees at the stages of a run: balance, and the share of the largest group."""
    run = Path(runs[0])
    read_run(run, PretrainConfig)
    snapshots = load_snapshots(run / "snapshots", MOST_HEALTH_STAGES)
    if not snapshots:
        raise ValueError(f"{run} has no snapshot yet: `evomask resume {run}` goes on with it")
    return tree_health_curves(health_by_stage(snapshots))


def draw_loss(runs: Sequence[str], _: Sequence[Path]) -> Figure:
    """The loss of a run by step."""
    run = Path(runs[0])
    read_run(run, PretrainConfig)
    metrics = read_metrics(run)
    if not metrics:
        raise ValueError(f"{run} has logged no step yet: `evomask resume {run}` goes on with it")
    return loss_curve(metrics)


def draw_gradients(folders: Sequence[str], _: Sequence[Path]) -> Figure:
    """Gradients of fine-tuning by block, of the folder of such an evaluation; several on one page."""
    gradients = {}
    for folder in folders:
        try:
            gradients[folder] = mean_gradients(read_metrics(Path(folder)))
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
    return gradients_by_depth(gradients)


PICTURES: dict[str, Picture] = {
    "masks": Picture(_of_tap(show.show_masks)),
    "hierarchy": Picture(_of_tap(show.show_hierarchy)),
    "tree": Picture(_of_tap(show.show_tree)),
    "attention": Picture(_of_tap(show.show_attention)),
    "heads": Picture(_of_heads(show.show_heads)),
    "class-attention": Picture(_of_heads(show.show_class_attention)),
    "matches": Picture(draw_matches),
    "distance": Picture(draw_distance, several=True),
    "reconstruction": Picture(draw_reconstruction),
    "difficulty": Picture(draw_difficulty, several=True),
    "stages": Picture(draw_stages, of_images=False),
    "health": Picture(draw_health, of_images=False),
    "loss": Picture(draw_loss, of_images=False),
    "gradients": Picture(draw_gradients, of_images=False, several=True),
}
"""By name: of an encoder, then of a run's model, then of a run, last of a fine-tuning."""


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
