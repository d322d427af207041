"""Reading validation images before training: a broken one is said now, and not after thousands of steps."""

from contextlib import closing
from typing import Any

from torch.utils.data import Dataset, Subset

from evomask.data.loader import in_order
from evomask.engine import distributed
from evomask.engine.progress import ProgressBar


def check_readable(images: Dataset[Any], workers: int) -> None:
    """Read all of a data set, shared out among the processes there are.

    Args:
        images: of a length, and with errors that name an image.
        workers: processes that load images.

    Raises:
        ValueError: one cannot be used.
    """
    own = range(distributed.rank(), len(images), distributed.world_size())  # type: ignore[arg-type]  # it has a length
    with distributed.agreed(), closing(ProgressBar("reading validation images", len(own))) as bar:
        for done, _ in enumerate(in_order(Subset(images, own), None, workers), start=1):
            bar.update(done)
