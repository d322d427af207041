"""One pass over all images of a labelled set, shared out among the processes there are."""

from collections.abc import Callable
from contextlib import closing

import torch
from torch import Tensor
from torch.utils.data import Subset

from evomask.data.images import ImageSource
from evomask.data.labelled import LabelledImages
from evomask.data.loader import in_order
from evomask.engine import distributed
from evomask.engine.progress import ProgressBar
from evomask.models.encoders import Encoder


@torch.no_grad()
def for_all_images(
    compute: Callable[[Tensor], Tensor],
    source: ImageSource,
    encoder: Encoder,
    title: str,
    *,
    device: torch.device,
    shown: float,
    batch_size: int,
    workers: int,
) -> tuple[Tensor, Tensor]:
    """What `compute` makes of all images (n, ...) float32, and their labels (n,); on the CPU, in every process.

    Args:
        compute: (B, C, H, W) uint8 on the device -> (B, ...).
        source: images with labels.
        encoder: for the size of images.
        title: for the progress bar.
        device: to compute on.
        shown: how much of an image's shorter side is seen, see `LabelledImages`.
        batch_size: images at a time, in each process.
        workers: processes that load images, for each process.
    """
    # As many in each process: a sharded model is computed by all together.
    own = Subset(
        LabelledImages(source, encoder.image_size, shown),
        [index % len(source) for index in distributed.own_share(len(source))],
    )
    results, labels, done = [], [], 0
    with distributed.agreed(), closing(ProgressBar(title, len(own))) as bar:
        for images_uint8, label in in_order(own, batch_size, workers):
            results.append(compute(images_uint8.to(device)).float().cpu())
            labels.append(label)
            done += len(label)
            bar.update(done)
    return tuple(distributed.gathered(torch.cat(parts))[: len(source)] for parts in (results, labels))  # type: ignore[return-value]
