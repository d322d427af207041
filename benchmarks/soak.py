"""Kill a run of two processes again and again, at random, and see whether it always comes to the same end.

    python benchmarks/soak.py --trials 200 --out soak        # goes on where it stopped; prints a summary

In every trial a tiny run is started, and at a random time a random signal is sent to one of its processes or to all. What is
left has to end by itself. Then the run is resumed, by two processes or by one, with sharded weights or whole ones; in a third
of the trials it is disturbed once more. In the end every step has to stand in the log once, with the loss that it has in a run
that nothing disturbs.

Processes are forked from one that has loaded the libraries, which takes longer than a run. They find each other as under
torchrun, and as under torchrun, those that are left are told to end.
"""

import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

HANG_SECONDS = 60
TOLERANCE = 1e-5
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

HOST = "--host.encoder.image-size 32 32 --host.encoder.width 32 --host.encoder.depth 2 --host.encoder.heads 2"
HOST += " --host.encoder.drop-path 0.1 --host.decoder-width 16 --host.decoder-depth 2 --host.decoder-heads 2"
TRAIN = "--data.scenes 32 --data.workers 0 --optim.base-lr 0.02 --train.epochs 10 --train.batch-size 8 --train.micro-batches 2"
TRAIN += " --train.device cpu --train.log-every 1 --monitor.every 0 --train.save-minutes 0.003"
TINY = [*HOST.split(), *TRAIN.split()]
STEPS = 40

PROGRAM = """
import os, sys, torch
torch.set_num_threads(1)
for number in (1, 2):
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
os.setsid()
os.environ.update(environment)
from evomask.cli import main
sys.exit(main(arguments))
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Kill a run at random and see whether it recovers.

    Attributes:
        trials: how many, those of earlier calls included.
        out: the folder for what was found, trials.jsonl; to be named again to go on.
        minutes: start no further trial after that.
        seed: of all that is random.
    """

    trials: int = 200
    out: Path = Path("soak")
    minutes: float = float("inf")
    seed: int = 0


class Processes:
    """The command in so many processes."""

    def __init__(self, ranks: int, arguments: list[str], said: Path):
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            port = str(listening.getsockname()[1])
        context = multiprocessing.get_context("forkserver")
        self.started = time.monotonic()
        self.processes: list[Any] = []
        for rank in range(ranks):
            names = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
            environment = names | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if ranks > 1 else {}
            known = {"said": f"{said}.{rank}", "environment": environment, "arguments": arguments}
            self.processes.append(context.Process(target=exec, args=(PROGRAM, known)))
            self.processes[-1].start()

    def disturb(self, number: signal.Signals, ranks: list[int]) -> None:
        """Send a signal to some of them."""
        for rank in ranks:
            with suppress(ProcessLookupError):
                os.kill(self.processes[rank].pid, number)

    def wait(self, seconds: float) -> list[int | None]:
        """Exit codes; None of one that has not ended by then, and is killed.

        As torchrun does, tell the others to end where one has ended, but in success. Unlike it, wait for longer than 30 s.
        """
        deadline = time.monotonic() + seconds
        told = False
        while time.monotonic() < deadline and any(process.exitcode is None for process in self.processes):
            if not told and any(process.exitcode for process in self.processes):
                told = True
                time.sleep(0.1)
                self.disturb(signal.SIGTERM, [rank for rank, process in enumerate(self.processes) if process.exitcode is None])
            time.sleep(0.02)
        codes = [process.exitcode for process in self.processes]
        for process in self.processes:
            process.kill()
            process.join()
        return codes


def losses(run: Path) -> list[tuple[int, float]]:
    """Step and loss of every row of the log."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(row["step"], row["loss"]) for row in rows]


def trial(number: int, options: Options, undisturbed: list[tuple[int, float]], seconds: float) -> dict[str, Any]:
    """One run, disturbed and recovered; what happened."""
    chance = random.Random(f"{options.seed} {number}")
    folder = options.out / f"trial{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    run = folder / "run"
    parallel = chance.choice(["ddp", "fsdp"])
    disturbances = 2 if chance.random() < 1 / 3 else 1
    found: dict[str, Any] = {"trial": number, "parallel": parallel, "disturbances": []}
    ranks = 2
    for attempt in range(20):
        if (run / "config.json").exists():
            arguments = ["resume", str(run)]
        else:
            arguments = ["pretrain", "demo", *TINY, "--train.parallel", parallel, "--out", str(run)]
        processes = Processes(ranks, arguments, folder / f"said{attempt}")
        if attempt >= disturbances:
            codes = processes.wait(10 * seconds + HANG_SECONDS)
            found |= {"codes": codes, "processes": ranks}
            break
        after = chance.uniform(0, seconds if attempt == 0 else seconds / 2)
        which = chance.choice([[0], [1], [0, 1]]) if ranks == 2 else [0]
        kind = chance.choice(SIGNALS)
        time.sleep(after)
        over = all(process.exitcode is not None for process in processes.processes)
        processes.disturb(kind, which)
        sent = time.monotonic()
        codes = processes.wait(HANG_SECONDS)
        saved = sorted(path.name for path in (run / "checkpoints").glob("step_*")) if run.exists() else []
        found["disturbances"].append(
            {"signal": kind.name, "to": which, "after": round(after, 2), "was_over": over, "codes": codes}
            | {"ended_after": round(time.monotonic() - sent, 2), "newest": saved[-1] if saved else None}
        )
        if None in codes:
            return found | {"recovered": False, "why": f"a process hung for over {HANG_SECONDS} s"}
        ranks = 2 if parallel == "fsdp" else chance.choice([1, 2])
    if codes != [0] * ranks:
        return found | {"recovered": False, "why": f"exit codes {codes}"}
    rows = losses(run)
    if [step for step, _ in rows] != list(range(STEPS)):
        return found | {"recovered": False, "why": f"the log has steps {[step for step, _ in rows]}"}
    difference = max(abs(loss - expected) for (_, loss), (_, expected) in zip(rows, undisturbed, strict=True))
    found |= {"difference": difference, "recovered": difference <= TOLERANCE}
    if found["recovered"]:
        shutil.rmtree(folder)
    return found


def summary(trials: list[dict[str, Any]]) -> str:
    """A few lines in Markdown."""
    disturbances = [each for one in trials for each in one["disturbances"] if not each["was_over"]]
    recovered = sum(one["recovered"] for one in trials)
    lines = [f"{len(trials)} trials, {len(disturbances)} disturbances of a running run, {recovered} recoveries", ""]
    whom = {(0,): "process 0", (1,): "process 1", (0, 1): "both"}
    by_kind = Counter((each["signal"], whom[tuple(each["to"])]) for each in disturbances)
    lines += ["| signal | to | disturbances | longest until all had ended, s |", "|---|---|---|---|"]
    for (kind, told), count in sorted(by_kind.items()):
        alike = (each for each in disturbances if (each["signal"], whom[tuple(each["to"])]) == (kind, told))
        lines.append(f"| {kind} | {told} | {count} | {max(each['ended_after'] for each in alike):.1f} |")
    before = sum(each["newest"] is None for each in disturbances)
    largest = max((one["difference"] for one in trials if "difference" in one), default=float("nan"))
    lines += ["", f"before the first checkpoint: {before}; largest difference of a loss: {largest:.1e}"]
    lines += [f"trial {one['trial']}: {one.get('why', one.get('difference'))}" for one in trials if not one["recovered"]]
    return "\n".join(lines)


def main() -> int:
    """Returns 1 where a run has not recovered."""
    options = tyro.cli(Options)
    options.out.mkdir(parents=True, exist_ok=True)
    multiprocessing.get_context("forkserver").set_forkserver_preload(["evomask.cli", "evomask.recipes.launch"])
    begun = time.monotonic()
    reference = options.out / "undisturbed"
    shutil.rmtree(reference, ignore_errors=True)
    Processes(1, ["--version"], options.out / "said").wait(HANG_SECONDS)  # the libraries
    processes = Processes(2, ["pretrain", "demo", *TINY, "--out", str(reference)], options.out / "said")
    assert processes.wait(10 * HANG_SECONDS) == [0, 0], (options.out / "said.0").read_text()
    seconds = time.monotonic() - processes.started
    undisturbed = losses(reference)

    path = options.out / "trials.jsonl"
    trials = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    while len(trials) < options.trials and time.monotonic() - begun < 60 * options.minutes:
        trials.append(trial(len(trials), options, undisturbed, seconds))
        with path.open("a") as file:
            file.write(json.dumps(trials[-1]) + "\n")
        print(f"{len(trials)}/{options.trials}  {sum(not one['recovered'] for one in trials)} not recovered", file=sys.stderr)
    print(summary(trials))
    return int(not all(one["recovered"] for one in trials))


if __name__ == "__main__":
    sys.exit(main())
