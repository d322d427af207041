"""A watch over the processes of a run: where one of them hangs, the others say which, and end, so that a restart can help."""

import logging
import os
import socket
import threading
import time
from datetime import timedelta
from typing import Self

from torch.distributed.distributed_c10d import Store

from evomask.engine import distributed

LONG = 30
"""Pieces of work that may take longer than a step, by this factor: the first step, which compiles; hooks; checkpoints."""
EXIT_CODE = 1
GRACE_SECONDS = 5.0
"""How long the first process, which may keep the store, waits for the others to give up, too."""

logger = logging.getLogger("evomask")


class Watch:
    """While it is entered, every process leaves word of the step it is in; one that hears nothing new for too long ends.

    In a single process it does nothing: nobody waits for it.

    Args:
        seconds: how long a step, or one of its micro-batches, may take.
    """

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._key = f"at/{distributed.rank()}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._store = distributed.store().clone() if distributed.world_size() > 1 else None
        if self._store is not None:
            self._store.set_timeout(timedelta(seconds=10))  # whoever keeps it may be what hangs
        self.at(-1, "starting", long=True)
        if self._store is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def at(self, step: int, what: str, long: bool = False) -> None:
        """This process is about to do that in this step."""
        self._step, self._what, self._since = step, what, time.monotonic()
        self._deadline = self._since + self._seconds * (LONG if long else 1)
        if self._store is not None:
            self._store.set(self._key, f"{step} {socket.gethostname()} {os.getpid()} {what}")

    def _watch(self) -> None:
        while not self._over.wait(min(1.0, self._seconds / 10)):
            if time.monotonic() > self._deadline:
                self._give_up()

    def _give_up(self) -> None:
        assert self._store is not None
        # All find out at about the same time. Who is late is asked first: once all have given up, the store may go.
        late = self._who_is_late(self._store)
        if distributed.first_to_give_up(self._store):
            logger.error(
                "no progress for %.0f s in step %d (process %d waits at %s): %s. All end; `torchrun --max-restarts 3` goes on "
                "by itself, and so does `evomask resume`. Where it needs longer, raise --train.timeout-seconds",
                *(time.monotonic() - self._since, self._step, distributed.rank(), self._what, late),
            )
        if distributed.rank() == 0:
            distributed.wait_for_all_to_give_up(self._store, GRACE_SECONDS)
        os._exit(EXIT_CODE)

    def _who_is_late(self, store: Store) -> str:
        try:
            words = [store.get(f"at/{rank}").decode().split(" ", 3) for rank in range(distributed.world_size())]
        except RuntimeError:
            return "whoever keeps word of where all are cannot be reached: torchrun's own process, or the first process"
        places = [(int(step), _ORDER.index(what)) for step, _, _, what in words]
        if min(places) == max(places):
            return "all processes stand there, so it is the network, or the disk, that hangs"
        late = [
            f"process {rank} on {host} (pid {pid}), at {what} of step {step}"
            for rank, (place, (step, host, pid, what)) in enumerate(zip(places, words, strict=True))
            if place == min(places)
        ]
        return "late is " + " and ".join(late[:4]) + (f" and {len(late) - 4} more" if len(late) > 4 else "")


_ORDER = ("starting", "hooks", "images", "the others' images", "the model", "gradients", "the end", "a checkpoint")
