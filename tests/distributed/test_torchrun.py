"""torchrun itself: what it restarts goes on by itself, also where a whole node is gone and another one takes its place."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from evomask.engine.metrics import read_metrics

STEPS = 56
PATIENCE_SECONDS = 200
SHARED_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
Torchrun = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def torchrun(tmp_path: Path) -> Iterator[Torchrun]:
    """Start an agent in an empty folder; whatever it leaves behind ends with the test."""
    agents: list[subprocess.Popen[str]] = []

    def start_agent(*arguments: str) -> subprocess.Popen[str]:
        alone = {name: value for name, value in os.environ.items() if not name.startswith(("EVOMASK", "TORCHELASTIC"))}
        with open(tmp_path / f"agent{len(agents)}.txt", "w") as said:
            # Else torch 2.15 does not tell a node that takes another one's place where the others meet, see docs/scaling.md.
            env = alone | {"OMP_NUM_THREADS": "1"} | ({} if "--standalone" in arguments else {SHARED_STORE: "1"})
            command = [sys.executable, "-m", "torch.distributed.run", *arguments]
            agents.append(subprocess.Popen(command, cwd=tmp_path, env=env, stdout=said, stderr=said, text=True))
        return agents[-1]

    yield start_agent
    for agent in agents:
        for pid in [*workers_of(agent), agent.pid]:
            kill(pid)
        agent.wait()


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def workers_of(agent: subprocess.Popen[str]) -> list[int]:
    """The training processes that an agent has started."""
    found = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(agent.pid)], capture_output=True, text=True, check=False)
    return [int(line.split()[0]) for line in found.stdout.splitlines() if "evomask.cli" in line]


def wait_for_step(run: Path, step: int, agent: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not any(row["step"] >= step for row in read_metrics(run)):
        assert agent.poll() is None, "the agent is gone"
        assert time.monotonic() < deadline, f"step {step} never came"
        time.sleep(0.005)


def wait_until_reachable(port: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, "the agent never listened"
            time.sleep(0.05)


def assert_same_losses(run: Path, undisturbed: Path) -> None:
    rows, expected = read_metrics(run), read_metrics(undisturbed)
    assert [row["step"] for row in rows] == list(range(STEPS)), "no step is missing, none is there twice"
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], abs=1e-5)


def test_a_restarted_run_goes_on_in_its_own_folder(
    torchrun: Torchrun, tiny: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "runs/demo").mkdir(parents=True)
    (tmp_path / "runs/demo/of another run").touch()
    command = ["-m", "evomask.cli", "pretrain", "demo", *tiny, "--train.save-minutes", "0.005"]
    agent = torchrun("--standalone", "--nproc-per-node", "2", "--max-restarts", "2", *command)
    run = tmp_path / "runs/demo-2"
    wait_for_step(run, 25, agent)
    kill(workers_of(agent)[1])
    assert agent.wait(PATIENCE_SECONDS) == 0, (tmp_path / "agent0.txt").read_text()
    assert_same_losses(run, undisturbed)
    said = (tmp_path / "agent0.txt").read_text().splitlines()
    assert "evomask: goes on with runs/demo-2, which this job has begun" in said
    assert said[-1] == "runs/demo-2"
    assert [path.name for path in sorted((tmp_path / "runs").iterdir())] == ["demo", "demo-2"]


def test_two_nodes_one_of_which_is_lost_and_replaced(
    torchrun: Torchrun, free_port: str, tiny: list[str], undisturbed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = ["-m", "evomask.cli", "pretrain", "demo", "--out", str(run), *tiny, "--train.save-minutes", "0.005"]
    meeting = ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port}", "--rdzv-id", "job 7"]
    meeting += ["--rdzv-conf", "keep_alive_interval=1"]  # a node that is silent for three of these is gone; else of 5 s each
    meeting += ["--nnodes", "2", "--nproc-per-node", "1", "--max-restarts", "3"]
    first = torchrun(*meeting, "--local-addr", "127.0.0.1", *command)
    wait_until_reachable(int(free_port))  # that of the first is where they meet, and it is not to be lost
    second = torchrun(*meeting, "--local-addr", "127.0.0.2", *command)
    wait_for_step(run, 25, first)
    for pid in [second.pid, *workers_of(second)]:  # as a machine that loses power
        kill(pid)
    third = torchrun(*meeting, "--local-addr", "127.0.0.2", *command)
    said = [tmp_path / f"agent{number}.txt" for number in range(3)]
    assert first.wait(PATIENCE_SECONDS) == 0, [path.read_text() for path in said]
    assert third.wait(PATIENCE_SECONDS) == 0, [path.read_text() for path in said]
    assert_same_losses(run, undisturbed)
