"""Commands of evomask as processes of their own: finished ones are left alone, broken ones go on, some at a time."""

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle, islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import torch

from evomask.engine.run import record_of
from evomask.tasks.result import RESULT

logger = logging.getLogger("evomask")

COMMANDS = "commands.jsonl"
"""Below the folder of a runner: a row for each command that has ended."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command of evomask that makes a folder.

    Attributes:
        arguments: but for --out.
        folder: that it makes.
    """

    arguments: tuple[str, ...]
    folder: Path

    @property
    def whole(self) -> tuple[str, ...]:
        """All of its arguments."""
        return (*self.arguments, "--out", str(self.folder))

    @property
    def text(self) -> str:
        """As it is given in a shell."""
        return shlex.join(["evomask", *self.whole])

    @property
    def metrics(self) -> dict[str, Any] | None:
        """What it has found; None where it is not finished, or what it has written cannot be read."""
        try:
            return json.loads((self.folder / RESULT).read_text())["metrics"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def next_arguments(self) -> tuple[str, ...]:
        """What is left to be run: the whole command, one that goes on where it was broken off, or nothing.

        Raises:
            ValueError: another command has made the folder.
        """
        made_by = record_of(self.folder).get("command")
        if made_by is not None and made_by != self.text:
            raise ValueError(f"{self.folder} was made by another command, `{made_by}`: choose another --out, or delete it")
        if self.metrics is not None:
            return ()
        return self.whole if made_by is None else ("resume", str(self.folder))


@dataclass
class Runner:
    """Runs commands, some at a time, each in a process group of its own with its log in OUT/logs.

    Attributes:
        out: the folder.
        jobs: chains at a time.
        launcher: what starts evomask. None: this Python; where there are several GPUs and jobs, each chain then has one GPU.
        failures: what went wrong, a line each.
    """

    out: Path
    jobs: int = 1
    launcher: Sequence[str] = ()
    failures: list[str] = field(default_factory=list)

    def __post_init__(self):
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._live: set[subprocess.Popen[bytes]] = set()
        self._shared: dict[Path, threading.Lock] = {}

    def run(self, chains: Sequence[Sequence[Command]], minutes: float | None) -> int | None:
        """All of them; returns the number of the signal that ended it before, SIGTERM where time was up."""
        (self.out / "logs").mkdir(parents=True, exist_ok=True)
        received: list[int] = []
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # the terminal is closed, and there is no nohup
            numbers.append(signal.SIGHUP)
        previous = {number: signal.signal(number, lambda number, _: received.append(number)) for number in numbers}
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        places: SimpleQueue[Mapping[str, str]] = SimpleQueue()
        for place in self._places():
            places.put(place)
        try:
            with ThreadPoolExecutor(self.jobs) as pool:
                futures = [pool.submit(self._run_chain, chain, places) for chain in chains]
                while not all(future.done() for future in futures):
                    time.sleep(0.1)
                    if deadline is not None and time.monotonic() > deadline:
                        received.append(signal.SIGTERM)
                    if received and not self._stop.is_set():
                        self._end()
            for future in futures:
                future.result()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        return received[0] if self._stop.is_set() else None

    def _end(self) -> None:
        self._stop.set()
        with self._lock:
            for process in self._live:
                with suppress(ProcessLookupError):  # it has just ended by itself
                    os.killpg(process.pid, signal.SIGTERM)

    def _places(self) -> list[Mapping[str, str]]:
        """Where as many chains can run as do at a time, as variables of the environment."""
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")  # numbers or names, as the user has chosen them
        count = torch.cuda.device_count()
        gpus = [str(number) for number in range(count)] if visible is None else visible.replace(" ", "").split(",")[:count]
        if self.launcher or self.jobs == 1 or count < 2:
            return [{}] * self.jobs
        return [{"CUDA_VISIBLE_DEVICES": gpu} for gpu in islice(cycle(gpus), self.jobs)]

    def _run_chain(self, chain: Sequence[Command], places: SimpleQueue[Mapping[str, str]]) -> None:
        place = places.get()  # there are as many as there are threads
        try:
            self._run_in_order(chain, place)
        finally:
            places.put(place)

    def _run_in_order(self, chain: Sequence[Command], place: Mapping[str, str]) -> None:
        missing: list[str] = []
        for command in chain:
            if any(folder in word for folder in missing for word in command.arguments):
                missing.append(str(command.folder))  # of what has failed nothing can be asked
                continue
            with self._lock:
                shared = self._shared.setdefault(command.folder, threading.Lock())
            with shared:  # a tokenizer is wanted by several
                if not self._run(command, place):
                    missing.append(str(command.folder))

    def _run(self, command: Command, place: Mapping[str, str]) -> bool:
        """Whether it has come to its end, now or before."""
        try:
            arguments = command.next_arguments()
        except ValueError as error:
            self.failures.append(str(error))
            return False
        if not arguments:
            return True
        log = self.out / "logs" / f"{command.folder.name}.txt"
        started, begin = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        with log.open("ab") as said:
            with self._lock:
                if self._stop.is_set():
                    return False
                evomask = self.launcher or (sys.executable, "-m", "evomask.cli")
                process = subprocess.Popen(
                    [*evomask, *arguments], stdout=said, stderr=said, start_new_session=True, env=os.environ | place
                )
                self._live.add(process)
            code = process.wait()
            with self._lock:
                self._live.remove(process)
        seconds = round(time.monotonic() - begin, 1)
        row = {"command": shlex.join(["evomask", *arguments]), "started": started, "seconds": seconds, "code": code}
        with self._lock, (self.out / COMMANDS).open("a") as rows:
            rows.write(json.dumps(row) + "\n")
        if code == 0 and command.metrics is not None:
            logger.info("done in %s s: %s", seconds, command.folder)
            return True
        if not self._stop.is_set():
            self.failures.append(f"`{row['command']}` failed ({_last_line(log)}; all of it in {log})")
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("evomask: ") if lines else "it said nothing"
