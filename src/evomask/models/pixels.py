"""What hosts that restore pixels have in common: images as patches, and back."""

from torch import Tensor

from evomask.masking import Mask
from evomask.models.host import Host


class PixelHost(Host):
    """A host that restores pixels.

    Attributes:
        patch_size: height and width in pixels of a place of the mask.
    """

    patch_size: tuple[int, int]

    def patchify(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, patch height * patch width * C), pixels row by row with channels last."""
        (rows, columns), (height, width) = self.grid, self.patch_size
        patches = images.unflatten(3, (columns, width)).unflatten(2, (rows, height))  # B C rows height columns width
        return patches.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """The inverse of `patchify`."""
        (rows, columns), (height, width) = self.grid, self.patch_size
        pixels = patches.unflatten(2, (height, width, -1)).unflatten(1, (rows, columns))  # B rows columns height width C
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    def hidden_patches(self, images: Tensor, mask: Mask) -> Tensor:
        """Of `patchify`, the patches that the mask hides, in their order."""
        patches = self.patchify(images)
        return patches.gather(1, as_index(mask.masked_indices, patches))

    def with_hidden(self, images: Tensor, mask: Mask, hidden: Tensor) -> Tensor:
        """(B, C, H, W) the images with other pixels in the hidden patches, those of `hidden` in their order."""
        patches = self.patchify(images)
        return self.unpatchify(patches.scatter(1, as_index(mask.masked_indices, patches), hidden))


def as_index(indices_BK: Tensor, like: Tensor) -> Tensor:
    """(B, K) places -> (B, K, D), for `gather` and `scatter` along the places of a (B, N, D)."""
    return indices_BK.unsqueeze(-1).expand(-1, -1, like.shape[-1])
