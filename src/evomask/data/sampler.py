"""Which images make up which step: a pure function of (seed, step)."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

Key = tuple[int, int]
"""(epoch, index): what a data set is asked for, so that its draws can depend on both."""

_MASK = 2**64 - 1


def sample_seed(seed: int, *counters: int) -> int:
    """A 63-bit number that is well mixed from all of its arguments (splitmix64; Steele et al., 2014)."""
    mixed = 0
    for number in (seed, *counters):
        mixed = (mixed ^ number) + 0x9E3779B97F4A7C15 & _MASK
        mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & _MASK
        mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & _MASK
        mixed ^= mixed >> 31
    return mixed >> 1


class StepSampler(Sampler[list[Key]]):
    """The micro-batches of a range of steps, for a DataLoader's `batch_sampler`.

    An epoch goes once through a random order of the data, and leaves out the last batch where it is not full. Every process
    takes its own share of the same global batch, so neither the number of processes nor that of micro-batches changes what
    a step sees, and a sampler that begins at step k gives what another gives from there on.

    Args:
        length: images in the data set.
        batch_size: images a step, over all processes.
        seed: of the orders.
        steps: which steps.
        rank: this process's number.
        world_size: the number of processes.
        micro_batches: parts in which a process takes its share of a step.

    Raises:
        ValueError: fewer images than a batch, or a batch that cannot be shared out evenly.
    """

    def __init__(
        self, length: int, batch_size: int, seed: int, steps: range, rank: int = 0, world_size: int = 1, micro_batches: int = 1
    ):
        if length < batch_size:
            raise ValueError(f"there are only {length} images for a batch of {batch_size}: lower the batch size")
        if batch_size % (world_size * micro_batches):
            raise ValueError(
                f"a batch of {batch_size} cannot be shared out to {world_size} processes with {micro_batches} micro-batches "
                "each: change the batch size or the number of micro-batches"
            )
        self.steps_per_epoch = length // batch_size
        self.length = length
        self._batch_size, self._seed, self._steps = batch_size, seed, steps
        self._share = batch_size // world_size
        self._first = rank * self._share
        self._micro_batch = self._share // micro_batches
        self._orders: dict[int, NDArray[np.int64]] = {}

    def __len__(self) -> int:
        """Micro-batches."""
        return len(self._steps) * (self._share // self._micro_batch)

    def __iter__(self) -> Iterator[list[Key]]:
        """Yield each micro-batch as a list of (epoch, index)."""
        for step in self._steps:
            keys = [(step // self.steps_per_epoch, index) for index in self.indices(step)]
            for start in range(0, self._share, self._micro_batch):
                yield keys[start : start + self._micro_batch]

    def indices(self, step: int) -> list[int]:
        """The images that this process takes in a step."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        if epoch not in self._orders:
            # Two are kept: processes that load begin an epoch while the last batches of the one before are still to be used.
            for old in sorted(self._orders)[:-1]:
                del self._orders[old]
            self._orders[epoch] = np.random.default_rng(sample_seed(self._seed, epoch)).permutation(self.length)
        start = step_of_epoch * self._batch_size + self._first
        return self._orders[epoch][start : start + self._share].tolist()
