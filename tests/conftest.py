"""What all tests share: two threads at most, the public research images where they are, and commands in other processes."""

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest
import torch

from evomask.engine.metrics import read_metrics

torch.set_num_threads(min(2, torch.get_num_threads()))

hypothesis.settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Indices of data sets go to a temporary folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVOMASK_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder `shared/data` beside the checkout; tests that need it are skipped, and say so, where it is absent."""
    folder = Path(__file__).parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the research images of ../shared/data are not here")
    return folder


PATIENCE_SECONDS = 120

WITHOUT_PICTURES = """
from evomask.recipes import launch
launch.run_hooks = lambda *_: []
"""

# What a process does. It is forked from one that has the imports, which take longer than the run, behind it.
_PROGRAM = """
import os, sys, torch
torch.set_num_threads(1)
for name, number in (("out", 1), ("err", 2)):
    os.dup2(os.open(f"{prefix}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
os.setsid()
os.environ.update(environment)
exec(fault)
from evomask.cli import main
sys.exit(main(arguments))
"""


class Processes:
    """Processes of the command that were started together, each of which can be looked at and killed by itself."""

    def __init__(self, ranks: int, arguments: tuple[str, ...], fault: str, folder: Path):
        folder.mkdir()
        self._prefixes = [folder / f"rank{rank}" for rank in range(ranks)]
        several = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": a_free_port()} if ranks > 1 else {}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["evomask.cli", "evomask.recipes.launch", "evomask.recipes.evaluation"])
        self.processes = []
        for rank, prefix in enumerate(self._prefixes):
            environment = several | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if several else {})
            known = {"prefix": str(prefix), "environment": environment, "arguments": arguments, "fault": fault, "rank": rank}
            self.processes.append(context.Process(target=exec, args=(_PROGRAM, known)))
            self.processes[-1].start()

    def wait(self, seconds: float = PATIENCE_SECONDS) -> list[int | None]:
        """Exit codes, in the order of ranks; -9 where SIGKILL ended it."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.1, deadline - time.monotonic()))
            if process.exitcode is None:
                self.end()
                pytest.fail(f"not over after {seconds} s: {self.errors()}")
        return [process.exitcode for process in self.processes]

    def errors(self) -> list[str]:
        """Lines of stderr of all of them, without the progress of training."""
        lines = [line for prefix in self._prefixes for line in Path(f"{prefix}.err").read_text().splitlines()]
        return [line for line in lines if not line.startswith(("training ", "validation "))]

    def output(self) -> str:
        """What all of them wrote to stdout."""
        return "".join(Path(f"{prefix}.out").read_text() for prefix in self._prefixes)

    def kill(self, number: signal.Signals, *ranks: int) -> None:
        """Send a signal to some; to all where none is named."""
        for rank in ranks or range(len(self.processes)):
            with suppress(ProcessLookupError):
                os.kill(self.processes[rank].pid or 0, number)

    def end(self) -> None:
        """Whatever they do."""
        for process in self.processes:
            if process.exitcode is None:
                process.kill()
                process.join()

    def wait_for_step(self, run: Path, step: int) -> None:
        """Until that step stands in the log."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(row["step"] >= step for row in read_metrics(run)):
            if all(process.exitcode is not None for process in self.processes) or time.monotonic() > deadline:
                pytest.fail(f"step {step} never came: {self.errors()}")
            time.sleep(0.002)


Start = Callable[..., Processes]


def a_free_port() -> str:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return str(listening.getsockname()[1])


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """`start(ranks, *arguments, fault="", pictures=True)`: the command in so many processes.

    `fault` is Python code that each of them runs before; it knows its `rank`. Without `pictures` a run leaves out what is done
    between epochs and at the end for it to be looked at, which is most of the time of so small a one.
    """
    begun: list[Processes] = []

    def start_processes(ranks: int, *arguments: str, fault: str = "", pictures: bool = True) -> Processes:
        fault = fault if pictures else f"{WITHOUT_PICTURES}{fault}"
        begun.append(Processes(ranks, arguments, fault, tmp_path_factory.mktemp("processes") / "said"))
        return begun[-1]

    yield start_processes
    for processes in begun:
        processes.end()


@pytest.fixture
def free_port() -> str:
    """A port of this machine."""
    return a_free_port()
