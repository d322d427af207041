"""The figures of `evomask show` that are of images: a model's masks, trees, attention and reconstructions of them."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from evomask.analysis.head_attention import class_attention, patch_attention
from evomask.figures.attention import attention_of_patches, middle_queries
from evomask.figures.attention_heads import attention_by_head
from evomask.figures.class_attention import class_token_attention
from evomask.figures.hierarchy import FRACTIONS, partitions
from evomask.figures.masks import mask_columns
from evomask.figures.reconstruction import reconstructions
from evomask.figures.tree import trees_of_patches
from evomask.masking import EvolvedMasking, RandomMasking, build_hierarchy
from evomask.masking.affinity import AFFINITIES
from evomask.models.host import Host
from evomask.models.taps import AttentionTap

PAPER_BLOCKS = 6
PAPER_MASKING = EvolvedMasking()


def show_masks(
    tap: AttentionTap,
    images: Tensor,
    originals: Tensor,
    *,
    masking: EvolvedMasking = PAPER_MASKING,
    progress: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 0.95),
    blocks: int = PAPER_BLOCKS,
    seed: int = 0,
) -> Figure:
    """A random mask, then the evolved masks of this encoder at several moments of a training, all from the same noise.

    At progress 0 the cut is single patches, and the evolved mask is that random one.

    Args:
        tap: on the attention of an encoder in evaluation mode.
        images: (n, C, H, W) normalised, on the encoder's device.
        originals: (n, C, H, W) uint8, the same images.
        masking: the evolved masks to show.
        progress: shares of training, in [0, 1).
        blocks: over how many first blocks attention is averaged.
        seed: of the noise.
    """
    affinity = tap.by_block(images, blocks).mean(dim=1)
    noise = image_noise(len(images), tap.grid, seed).to(images.device)
    masks = {"random": RandomMasking(masking.ratio)(noise, tap.grid)}
    for share in progress:
        masks[f"evolved\n{share:.0%} of training"] = masking(noise, tap.grid, share, affinity)
    return mask_columns(originals, masks, tap.grid)


def show_hierarchy(
    tap: AttentionTap,
    images: Tensor,
    originals: Tensor,
    *,
    masking: EvolvedMasking = PAPER_MASKING,
    fractions: Sequence[float] = FRACTIONS,
    blocks: int = PAPER_BLOCKS,
) -> Figure:
    """The partitions at several depths.

    `masking` says which affinity and linkage; for the rest see `show_masks`.
    """
    attention = tap.by_block(images, blocks).mean(dim=1)
    hierarchy = build_hierarchy(AFFINITIES[masking.affinity](attention), masking.linkage)
    return partitions(originals, hierarchy, tap.grid, fractions)


def show_tree(
    tap: AttentionTap,
    images: Tensor,
    originals: Tensor,
    *,
    masking: EvolvedMasking = PAPER_MASKING,
    groups: int = 10,
    blocks: int = PAPER_BLOCKS,
) -> Figure:
    """The upper part of the trees, each node drawn as its patches.

    `masking` is as in `show_hierarchy`; for the rest see `show_masks`.
    """
    attention = tap.by_block(images, blocks).mean(dim=1)
    hierarchy = build_hierarchy(AFFINITIES[masking.affinity](attention), masking.linkage)
    return trees_of_patches(originals, hierarchy, tap.grid, groups)


def show_attention(
    tap: AttentionTap,
    images: Tensor,
    originals: Tensor,
    *,
    queries: Sequence[tuple[int, int]] | None = None,
    blocks: int = PAPER_BLOCKS,
) -> Figure:
    """Where patches look, mean over heads.

    These are the patches at `queries`, (row, column); None takes two. For the rest see `show_masks`.
    """
    return attention_of_patches(originals, tap.by_block(images, blocks), tap.grid, queries or middle_queries(tap.grid))


def show_heads(
    vit: VisionTransformer,
    images: Tensor,
    originals: Tensor,
    *,
    queries: Sequence[tuple[int, int]] | None = None,
    block: int | None = None,
) -> Figure:
    """Where patches look, each head in a colour.

    These are the patches at `queries`, (row, column); None takes two, and the last block. For the rest see `show_masks`.
    """
    grid = vit.patch_embed.grid_size
    queries = queries or middle_queries(grid)
    attention = patch_attention(vit, images, queries, block)
    return attention_by_head(originals, attention, grid, queries, block or len(vit.blocks))


def show_class_attention(vit: VisionTransformer, images: Tensor, originals: Tensor, *, block: int | None = None) -> Figure:
    """What the class token looks at in the last block, mean over heads, and head by head.

    `block`, from 1, is another one. For the rest see `show_masks`.
    """
    return class_token_attention(originals, class_attention(vit, images, block), vit.patch_embed.grid_size)


def show_reconstruction(
    host: Host,
    images: Tensor,
    originals: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    masking: EvolvedMasking = PAPER_MASKING,
    progress: float = 0.5,
    seed: int = 0,
) -> Figure:
    """What the host restores behind a random mask and behind an evolved one.

    Args:
        host: in evaluation mode.
        images: (n, C, H, W) normalised, on the host's device.
        originals: (n, C, H, W) uint8, the same images.
        mean: one a channel, of pixels in [0, 1], as the images were normalised.
        std: likewise.
        masking: the evolved masks to show.
        progress: the share of training, in [0, 1), that sets their depth.
        seed: of the noise.
    """
    noise = image_noise(len(images), host.grid, seed).to(images.device)
    affinity = host.affinity(host.embed(images).detach())
    masks = {
        "random mask": RandomMasking(masking.ratio)(noise, host.grid),
        f"evolved, {progress:.0%}": masking(noise, host.grid, progress, affinity),
    }
    trials = []
    for title, mask in masks.items():
        restored = host.reconstruct(images, mask)
        if restored is None:
            raise ValueError(f"a {type(host).__name__} restores no pixels: there is no reconstruction to show")
        trials.append((title, mask.masked, restored))
    return reconstructions(originals, trials, host.grid, mean, std)


def image_noise(images: int, grid: tuple[int, int], seed: int) -> Tensor:
    """(images, N) uniform in [0, 1): a function of the seed and of the place of an image among them."""
    generator = torch.Generator()
    return torch.stack(
        [torch.rand(grid[0] * grid[1], generator=generator.manual_seed(seed + image)) for image in range(images)]
    )
