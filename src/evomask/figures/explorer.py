"""What the explorer shows of an image: kept so that moving the depth neither asks the encoder nor builds a tree again."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from evomask.data.decode import UnreadableImage, decode
from evomask.data.labelled import fit
from evomask.figures.hierarchy import node_colours
from evomask.figures.paint import enlarged, paint_dot, paint_groups, paint_heat, paint_mask
from evomask.figures.reconstruction import denormalise
from evomask.figures.show import image_noise
from evomask.figures.style import to_rgb
from evomask.masking import EvolvedMasking, Hierarchy, Mask, build_hierarchy, masking_depth
from evomask.masking.affinity import AFFINITIES
from evomask.masking.hierarchy import Linkage
from evomask.models.encoders import Encoder
from evomask.models.host import Host
from evomask.models.taps import AttentionTap

KEPT_MODELS, KEPT_ATTENTION, KEPT_TREES = 4, 32, 64


@dataclass(frozen=True, eq=False)
class Model:
    """An encoder, and where it is that of a host of ours, the host, which restores what is hidden."""

    encoder: Encoder
    host: Host | None

    @cached_property
    def tap(self) -> AttentionTap:
        """How it is asked for its attention."""
        return self.encoder.tap


@dataclass(frozen=True)
class TreeChoice:
    """What decides on a tree, beside the image.

    Attributes:
        encoder: its spec.
        blocks: over how many first blocks attention is averaged.
        affinity: how attention becomes similarity.
        linkage: similarity to a merged node.
    """

    encoder: str
    blocks: int = 6
    affinity: str = "attention"
    linkage: Linkage = "weighted"


@dataclass(frozen=True)
class MaskChoice:
    """What decides on a mask, where there is a tree.

    Attributes:
        depth: share of the tree's height, in [0, 1).
        ratio: share of patches to hide.
        seed: of the noise.
    """

    depth: float = 0.5
    ratio: float = 0.75
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Looked:
    """An image, and what an encoder makes of it.

    Attributes:
        images: (1, C, H, W) normalised.
        picture: (height, width, 3) uint8, enlarged.
        attention_LNN: of each block, mean over heads.
    """

    images: Tensor
    picture: np.ndarray
    attention_LNN: Tensor


@dataclass(frozen=True, eq=False)
class Grown:
    """The tree of an image.

    Attributes:
        hierarchy: of one image.
        colour_M4: the colour of each node.
    """

    hierarchy: Hierarchy
    colour_M4: np.ndarray


class Explorer:
    """Pictures of an image and an encoder. All that is slow is kept: models, their attention, and trees.

    Args:
        load: the spec of an encoder -> the model; may raise a ValueError.
    """

    def __init__(self, load: Callable[[str], Model]):
        self._content: dict[str, bytes] = {}
        self.model = lru_cache(KEPT_MODELS)(load)
        self._looked = lru_cache(KEPT_ATTENTION)(self._look)
        self._grown = lru_cache(KEPT_TREES)(self._grow)
        self._attended = lru_cache(KEPT_TREES)(self._attend)

    def add(self, content: bytes) -> str:
        """Take an image file; returns the name by which it is asked for.

        Raises:
            ValueError: it is no image that can be read.
        """
        try:
            decode(content, 3)
        except UnreadableImage as error:
            raise ValueError(f"this is no image that can be read: {error}") from error
        image = hashlib.sha256(content).hexdigest()
        self._content = {name: each for name, each in self._content.items() if name != image} | {image: content}
        while len(self._content) > KEPT_ATTENTION:
            del self._content[next(iter(self._content))]
        return image

    def size(self, image: str, encoder: str) -> tuple[int, int]:
        """Height and width in pixels of the pictures that are painted of it."""
        height, width, _ = self._looked(image, encoder).picture.shape
        return height, width

    def grid(self, encoder: str) -> tuple[int, int]:
        """Rows and columns of an encoder's patches."""
        return self.model(encoder).tap.grid

    def partition(self, image: str, choice: TreeChoice, depth: float) -> tuple[np.ndarray, str]:
        """The groups at a depth in colour, and a line about them."""
        looked, grown, grid = *self._of(image, choice), self.grid(choice.encoder)
        level = int(masking_depth(grown.hierarchy.height, depth))
        group_N = grown.hierarchy.cut(level)[0].numpy()
        groups, counts = np.unique(group_N, return_counts=True)
        text = f"level {level} of {int(grown.hierarchy.height)}: {len(groups)} group{'s' * (len(groups) > 1)}"
        text += f", the largest {counts.max() / len(group_N):.0%} of the image"
        return paint_groups(looked.picture, group_N.reshape(grid), grown.colour_M4), text

    def masked(self, image: str, choice: TreeChoice, mask: MaskChoice) -> tuple[np.ndarray, str]:
        """What the encoder would see, and a line about it."""
        looked, grid = self._of(image, choice)[0], self.grid(choice.encoder)
        masked_N = self._mask(image, choice, mask).masked[0].numpy()
        return paint_mask(looked.picture, masked_N.reshape(grid)), f"{masked_N.sum()} of {len(masked_N)} patches hidden"

    def attention(self, image: str, choice: TreeChoice, place: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, str]:
        """The image with a dot on a patch, what that patch looks at, mean over the chosen blocks, and a line about it.

        Args:
            image: its name.
            choice: encoder and blocks.
            place: of the patch, from the top and from the left, as shares of the sides in [0, 1].
        """
        return self._attended(image, choice, place)

    def restored(self, image: str, choice: TreeChoice, mask: MaskChoice) -> tuple[np.ndarray | None, str]:
        """What the host restores behind the mask; None, and why, where it restores nothing."""
        model = self.model(choice.encoder)
        if model.host is None:
            return None, "an encoder alone restores nothing: name a run"
        looked = self._of(image, choice)[0]
        restored = model.host.reconstruct(looked.images, self._mask(image, choice, mask))
        if restored is None:
            return None, f"a {type(model.host).__name__} restores no pixels"
        return enlarged(to_rgb(denormalise(restored, model.encoder.mean, model.encoder.std))[0]), ""

    def _of(self, image: str, choice: TreeChoice) -> tuple[Looked, Grown]:
        return self._looked(image, choice.encoder), self._grown(image, choice)

    def _mask(self, image: str, choice: TreeChoice, mask: MaskChoice) -> Mask:
        grid, hierarchy = self.grid(choice.encoder), self._grown(image, choice).hierarchy
        count = max(1, int(hierarchy.patches * mask.ratio))
        return EvolvedMasking(mask.ratio).cut(hierarchy, image_noise(1, grid, mask.seed), count, mask.depth)

    @torch.no_grad()
    def _look(self, image: str, spec: str) -> Looked:
        model = self.model(spec)
        encoder = model.encoder
        if image not in self._content:
            raise ValueError("this image is no longer here: drop it again")
        pixels = fit(decode(self._content[image], encoder.in_chans), encoder.image_size).unsqueeze(0)
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (encoder.mean, encoder.std))
        images = (pixels.float() / 255 - mean) / std
        attention = model.tap.by_block(images, ALL_BLOCKS)[0]
        return Looked(images, enlarged(to_rgb(pixels)[0]), attention)

    def _grow(self, image: str, choice: TreeChoice) -> Grown:
        attention_BNN = self._looked(image, choice.encoder).attention_LNN[: choice.blocks].mean(dim=0, keepdim=True)
        hierarchy = build_hierarchy(AFFINITIES[choice.affinity](attention_BNN), choice.linkage)
        return Grown(hierarchy, node_colours(hierarchy)[0])

    def _attend(self, image: str, choice: TreeChoice, place: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, str]:
        looked, (rows, columns) = self._of(image, choice)[0], self.grid(choice.encoder)
        row, column = (min(int(share * count), count - 1) for share, count in zip(place, (rows, columns), strict=True))
        seen_N = looked.attention_LNN[: choice.blocks].mean(dim=0)[row * columns + column].numpy()
        dotted = paint_dot(looked.picture, (rows, columns), (row, column))
        heat = paint_heat(seen_N.reshape(rows, columns), looked.picture, (row, column))
        return dotted, heat, f"row {row + 1}, column {column + 1} gives up to {seen_N.max():.1%} to a patch"


ALL_BLOCKS = 1_000
"""More than any model has: each gives all it has."""
