"""Do the trees that masks are cut from follow what is in an image? Their agreement with labels of objects, parts or classes."""

from dataclasses import dataclass
from pathlib import Path

import torch

from evomask.analysis.label_agreement import label_agreement, patch_labels
from evomask.analysis.plain_affinities import PLAIN_AFFINITIES
from evomask.data.coco_masks import CocoMasks
from evomask.data.image_masks import ImageMaskFolders, MaskSource, SceneMasks
from evomask.data.labelled import fit
from evomask.data.spread import spread
from evomask.engine import distributed
from evomask.engine.pretrain import normalise
from evomask.engine.progress import ProgressBar
from evomask.masking import Hierarchy, build_hierarchy
from evomask.masking.affinity import AFFINITIES
from evomask.masking.hierarchy import Linkage
from evomask.models.encoders import Encoder


@dataclass(frozen=True, kw_only=True)
class HierarchyConfig:
    """Which images and labels, and which trees.

    Attributes:
        images: a folder of images. None: the embedded `scenes`, whose labels are their objects.
        masks: a folder with a PNG of the same name for each image, whose values are labels; or a file of COCO's instance
            annotations, whose objects and background are the labels.
        ignored: values of masks that are not looked at, such as 255.
        parts: of the scenes: label the parts of objects.
        count: at most so many images, from all over the folder.
        blocks: over how many first blocks attention is averaged.
        affinity: how attention becomes similarity: attention (the paper), popularity, profile, mutual or either.
        linkage: similarity to a merged node, weighted (Eq. 7) or average.
        batch_size: images at a time.
        device: "auto", "cpu", "cuda".
    """

    images: Path | None = None
    masks: Path | None = None
    ignored: tuple[int, ...] = ()
    parts: bool = False
    count: int = 500
    blocks: int = 6
    affinity: str = "attention"
    linkage: Linkage = "weighted"
    batch_size: int = 32
    device: str = "auto"

    def __post_init__(self):
        if self.affinity not in AFFINITIES:
            raise ValueError(f"--affinity must be one of {', '.join(AFFINITIES)}, not {self.affinity!r}")
        if (self.images is None) != (self.masks is None):
            raise ValueError("give both --images and --masks, or neither for the embedded scenes")
        for name in ("count", "blocks", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(self, name)}")

    def source(self, encoder: Encoder) -> MaskSource:
        """Images with masks."""
        if self.images is None or self.masks is None:
            return SceneMasks(encoder.image_size, self.count, self.parts, channels=encoder.in_chans)
        if self.masks.suffix == ".json":
            return CocoMasks(self.images, self.masks, channels=encoder.in_chans)
        return ImageMaskFolders(self.images, self.masks, self.ignored, channels=encoder.in_chans)


@torch.no_grad()
def evaluate_hierarchy(encoder: Encoder, config: HierarchyConfig) -> dict[str, float]:
    """Agreement of trees with labels, from 0 to 1: `purity`, `covering`, `best_rand`, and the same of trees without a model.

    The latter are `colour_purity`, `position_purity`, `colour_and_position_purity`, `chance_purity` and so on, see
    `analysis/plain_affinities.py`; all of the same images. What is measured is said in `analysis/label_agreement.py`.

    Raises:
        ValueError: an encoder whose attention cannot be had, images or masks that cannot be used.
    """
    tap = encoder.tap
    grid = tap.grid
    source = config.source(encoder)
    chosen = spread(config.count, len(source))
    device = distributed.pick_device(config.device)
    encoder.model.to(device)

    trees: dict[str, list[Hierarchy]] = {name: [] for name in ("", *PLAIN_AFFINITIES)}
    labels = []
    bar = ProgressBar("trees", len(chosen))
    for start in range(0, len(chosen), config.batch_size):
        part = chosen[start : start + config.batch_size]
        images_uint8 = torch.stack([fit(source.image(index), encoder.image_size) for index in part])
        masks = torch.stack([fit(source.mask(index).unsqueeze(0), encoder.image_size, sharp=True)[0] for index in part])
        labels.append(patch_labels(masks, grid))
        images = normalise(images_uint8.to(device), encoder.mean, encoder.std)
        attention = tap.by_block(images, config.blocks).mean(dim=1)
        trees[""].append(build_hierarchy(AFFINITIES[config.affinity](attention), config.linkage))
        for name, affinity in PLAIN_AFFINITIES.items():
            trees[name].append(build_hierarchy(affinity(images, grid), config.linkage))
        bar.update(start + len(part))
    bar.close()

    metrics: dict[str, float] = {}
    for name, parts in trees.items():
        found = label_agreement(Hierarchy.cat(parts), torch.cat(labels).to(device))
        prefix = f"{name}_" if name else ""
        metrics |= {f"{prefix}purity": found.purity, f"{prefix}covering": found.covering, f"{prefix}best_rand": found.best_rand}
        metrics["images"] = found.images
    return metrics
