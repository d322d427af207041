"""Mean attention distance: how far away the patches are that a patch looks at (Dosovitskiy et al., 2021, appendix D.7)."""

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from evomask.models.vit import attention_maps, embed_patches


def mean_attention_distance(attention: Tensor, grid: tuple[int, int]) -> Tensor:
    """Distance between the middles of a patch and those it looks at, weighted by attention, mean over the patches that look.

    Args:
        attention: (..., N, N), row: query, column: key, patches only; a row that sums to less than 1 is brought to it. Any
            dimensions before: images, blocks, heads.
        grid: rows and columns of patches, H x W = N.

    Returns:
        (...) in sides of a patch: 0 where each patch looks at itself alone, 7.3 for even attention on 14 x 14.
    """
    row, column = (part.flatten() for part in torch.meshgrid(*map(torch.arange, grid), indexing="ij"))
    place_N2 = torch.stack((row, column), dim=1).to(attention.device, torch.float32)
    distance_NN = torch.cdist(place_N2, place_N2, compute_mode="donot_use_mm_for_euclid_dist")  # exact zeros on the diagonal
    weight = attention.float()
    return ((weight * distance_NN).sum(dim=-1) / weight.sum(dim=-1)).mean(dim=-1)


@torch.no_grad()
def distance_by_block_and_head(vit: VisionTransformer, images: Tensor) -> Tensor:
    """The paper's Fig. 2(b), head by head: where a model looks near and where far.

    Args:
        vit: a plain ViT in evaluation mode, see `check_plain_vit`.
        images: (B, C, H, W) normalised, on its device.

    Returns:
        (blocks, heads), mean over the images, in sides of a patch; times the patch size, it is in pixels, as in the paper.
    """
    grid, prefix = vit.patch_embed.grid_size, vit.num_prefix_tokens
    maps = attention_maps(vit, embed_patches(vit, images), len(vit.blocks))
    return torch.stack([mean_attention_distance(each[..., prefix:, prefix:], grid).mean(dim=0) for each in maps])
