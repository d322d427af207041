"""One pass over all images of a set, shared out among the processes there are."""

from collections.abc import Callable
from contextlib import closing
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from evomask.data.loader import in_order
from evomask.engine import distributed
from evomask.engine.progress import ProgressBar


@torch.no_grad()
def for_all_images(
    compute: Callable[[Tensor], Tensor],
    images: Dataset[tuple[Tensor, int]],
    title: str,
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
) -> tuple[Tensor, Tensor]:
    """What `compute` makes of all images (n, ...), and the number that goes with each (n,); on the CPU, in every process.

    Args:
        compute: (B, C, H, W) uint8 on the device -> (B, ...).
        images: `images[index] -> (image_uint8 (C, H, W), its label, or another number)`.
        title: for the progress bar.
        device: to compute on.
        batch_size: images at a time, in each process.
        workers: processes that load images, for each process.
    """
    sized: Any = images
    count = len(sized)
    # As many in each process: a sharded model is computed by all together.
    own = Subset(images, [index % count for index in distributed.own_share(count)])
    results, numbers, done = [], [], 0
    with distributed.agreed(), closing(ProgressBar(title, len(own))) as bar:
        for images_uint8, number in in_order(own, batch_size, workers):
            results.append(compute(images_uint8.to(device)).cpu())
            numbers.append(number)
            done += len(number)
            bar.update(done)
    return tuple(distributed.gathered(torch.cat(parts))[:count] for parts in (results, numbers))  # type: ignore[return-value]
