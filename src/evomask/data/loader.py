"""Images in batches, for training and to look at all of them; and the watch over files that cannot be read."""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import Any, Protocol

import torch
from torch.utils.data import DataLoader, Dataset

from evomask.data.images import ImageSource
from evomask.data.sampler import Key, StepSampler

UNREADABLE_SHARE = 0.01


class TrainingImages(Protocol):
    """`dataset[epoch, index] -> (..., index of the image that was used)`."""

    @property
    def source(self) -> ImageSource:
        """The images that samples are made of."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key) -> tuple[Any, ...]: ...


def load_batches(
    dataset: TrainingImages,
    sampler: StepSampler,
    workers: int,
    device_type: str,
    collate: Callable[[list[Any]], tuple[Any, ...]] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield what the data set gives, stacked, for every micro-batch; the same for any number of workers.

    Args:
        dataset: images for training.
        sampler: which, in which micro-batches.
        workers: processes that load images.
        device_type: "cuda" prepares for the way to a GPU.
        collate: puts samples together where they cannot be stacked; what comes last are the indices of the images.

    Raises:
        ValueError: over 1% of the files cannot be read, or a worker process died.
    """
    loader = DataLoader(
        dataset,  # type: ignore[arg-type]  # a Dataset is what has these two methods
        batch_sampler=sampler,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device_type == "cuda",
        worker_init_fn=_be_a_quiet_worker,
    )
    unreadable: set[int] = set()
    with closing(_until_done(loader)) as batches:
        for keys in sampler:
            batch = next(batches)
            # An image comes back under another number than was asked for where its file could not be read.
            for (_, asked), used in zip(keys, batch[-1].tolist(), strict=True):
                if used != asked:
                    unreadable.add(asked)
            if len(unreadable) > UNREADABLE_SHARE * len(dataset):
                first = dataset.source.name(min(unreadable))
                count = f"{len(unreadable)} of {len(dataset)} files"
                raise ValueError(
                    f"{count} cannot be read, more than 1%, {first} for one: mend them, or remove them and start anew"
                )
            yield tuple(batch)


def in_order(
    dataset: Dataset[Any], batch_size: int | None, workers: int, collate: Callable[[list[Any]], Any] | None = None
) -> Iterator[Any]:
    """Yield all of a data set, once, in its order.

    Args:
        dataset: what to look at.
        batch_size: None: one at a time, and no batches.
        workers: processes that load images.
        collate: puts samples together where they cannot be stacked.

    Raises:
        ValueError: a worker process died.
    """
    loader = DataLoader(dataset, batch_size, num_workers=workers, collate_fn=collate, worker_init_fn=_be_a_quiet_worker)
    yield from _until_done(loader)


def _until_done(loader: DataLoader[Any]) -> Generator[Any, None, None]:
    batches = iter(loader)
    try:
        yield from batches
    except RuntimeError as error:
        # What a worker itself raises is passed on as a RuntimeError, too; these are torch's words for one that is gone.
        if not any(words in str(error) for words in ("exited unexpectedly", "killed by signal")):
            raise
        raise ValueError("a process that loads images died, often for want of memory: use fewer workers") from error
    finally:
        # Now, and not once garbage is collected: an error's traceback keeps the iterator, and a process that at its end waits
        # for workers that outlive a SIGTERM waits for ever.
        if loader.num_workers:
            batches._shutdown_workers()  # type: ignore[attr-defined]  # torch has no other word for it


def _be_a_quiet_worker(_: int) -> None:
    torch.set_num_threads(1)
    # Ctrl-C, `timeout` and job schedulers signal all processes of a group: the main process saves and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
