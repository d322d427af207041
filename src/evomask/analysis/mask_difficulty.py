"""How hard the masks of each depth are: what a trained host's loss is behind them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from evomask.masking import EvolvedMasking, Mask
from evomask.models.host import Host


@torch.no_grad()
def loss_by_depth(host: Host, images: Tensor, noise: Tensor, depths: Sequence[float], masking: EvolvedMasking) -> Tensor:
    """The host's loss behind masks that are cut from the same trees at several depths.

    Args:
        host: in evaluation mode.
        images: (B, C, H, W) normalised, on its device.
        noise: (B, N) uniform in [0, 1), the same at all depths.
        depths: shares of the trees' heights, in [0, 1); at 0 groups are single patches, and the mask is a random one.
        masking: ratio, linkage and affinity; its own depth is not used.

    Returns:
        (depths, B), image by image.
    """
    tokens = host.embed(images)
    affinity = host.affinity(tokens)
    losses = []
    for depth in depths:
        mask = masking(noise, host.grid, depth, affinity)
        each = [Mask(masked, mask.count) for masked in mask.masked.split(1)]
        parts = zip(images.split(1), tokens.split(1), each, strict=True)
        losses.append(torch.stack([host(image, token, own).loss for image, token, own in parts]))
    return torch.stack(losses)
