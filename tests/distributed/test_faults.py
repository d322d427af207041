"""What can go wrong in one process of several: all of them end, or go on, together; nothing is lost; one line says why."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evomask.engine.checkpoint import checkpoints, load_checkpoint
from evomask.engine.metrics import read_metrics

EPOCHS, STEPS = 3, 24
HANG_SECONDS = 60
"""No fault may keep processes waiting for longer."""

SHORT = ["--train.epochs", str(EPOCHS)]
Start = Callable[..., Any]
Begin = Callable[..., Any]

# Python code that a process runs before the command, see `start`.
AT_STEP = """
from evomask.engine.pretrain import PretrainStep
plain, calls = PretrainStep.__call__, 0
def fault(self, batch, progress):
    global calls
    calls += 1
    if rank == {rank} and calls == 2 * {step} + 1:  # of two micro-batches the first
        {what}
    return plain(self, batch, progress)
PretrainStep.__call__ = fault
"""
AT_IMAGES = """
from evomask.data.pretraining import PretrainingImages
plain, calls = PretrainingImages.__getitem__, 0
def fault(self, key):
    global calls
    calls += 1
    if rank == {rank} and calls == 4 * {step} + 1:
        {what}
    return plain(self, key)
PretrainingImages.__getitem__ = fault
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, start: Start, tiny: list[str]) -> Path:
    """The small run in one process, as nothing interrupts it."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    processes = start(1, "pretrain", "demo", "--out", str(run), *tiny, *SHORT, pictures=False)
    assert processes.wait() == [0], processes.errors()
    return run


@pytest.fixture
def begin(start: Start, tiny: list[str], tmp_path: Path) -> Begin:
    """`begin(fault, *options)`: the small run in two processes."""

    def begin_run(fault: str, *options: str) -> Any:
        return start(
            2, "pretrain", "demo", "--out", str(tmp_path / "run"), *tiny, *SHORT, *options, fault=fault, pictures=False
        )

    return begin_run


def assert_goes_on(run: Path, start: Start, undisturbed: Path, ranks: int = 2) -> None:
    """And ends as if nothing had happened."""
    processes = start(ranks, "resume", str(run), pictures=False)
    assert processes.wait() == [0] * ranks, processes.errors()
    rows, expected = read_metrics(run), read_metrics(undisturbed)
    assert [row["step"] for row in rows] == list(range(STEPS)), "no step is missing, none is there twice"
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in expected], abs=1e-5)


@pytest.mark.parametrize("times", [1, 2])
def test_all_are_told_to_end(times: int, begin: Begin, start: Start, undisturbed: Path, tmp_path: Path) -> None:
    """By a scheduler, and once more by torchrun, which passes its own signal on."""
    run = tmp_path / "run"
    processes = begin("")
    processes.wait_for_step(run, 8)
    for _ in range(times):
        processes.kill(signal.SIGTERM)
    assert processes.wait(HANG_SECONDS) == [143, 143]
    done = load_checkpoint(run)["step"]
    assert done > 8
    assert processes.errors() == [f"evomask: stopped by SIGTERM after {done} steps, all saved: `evomask resume {run}` goes on"]
    if times == 2:
        assert_goes_on(run, start, undisturbed, ranks=1)


@pytest.mark.parametrize("killed", [0, 1])
def test_one_is_killed(killed: int, begin: Begin, start: Start, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = begin("", "--train.save-minutes", "0.002")
    processes.wait_for_step(run, 10)
    processes.kill(signal.SIGKILL, killed)
    codes = processes.wait(HANG_SECONDS)
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] == 2
    # Of a store that went with its process, which under torchrun is not one of these, torch itself says something.
    [line] = [line for line in processes.errors() if killed == 1 or line.startswith("evomask")]
    assert line.startswith(f"evomask: process {1 - killed} of 2 on ")
    assert "has lost another one" in line
    assert "evomask resume" in line
    assert checkpoints(run), "what was saved is there"
    if killed == 0:
        assert_goes_on(run, start, undisturbed)


DISK_FULL = """
import errno
from evomask.engine import checkpoint
plain = checkpoint.HuggingFaceStorageWriter.write_data
def full(self, plan, planner):
    if rank == {rank} and "{name}" in str(self.path):
        with open(self.path / "half", "wb") as file:
            file.write(b"half a checkpoint")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path / "half"))
    return plain(self, plan, planner)
checkpoint.HuggingFaceStorageWriter.write_data = full
"""


BESIDE = """
from evomask.engine import loop
class Beside(loop.CheckpointWriter):
    def __init__(self, run, keep, model, optimizer, beside):
        super().__init__(run, keep, model, optimizer, torch.device("cpu"))
loop.CheckpointWriter = Beside
"""


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_checkpoints_are_written_beside_training(
    parallel: str, begin: Begin, start: Start, undisturbed: Path, tmp_path: Path
) -> None:
    """As on a GPU: a signal waits for what is being written, and a disk that is full is said at the next save."""
    run = tmp_path / "run"
    processes = begin(BESIDE, "--train.save-minutes", "0", "--train.parallel", parallel)
    processes.wait_for_step(run, 8)
    processes.kill(signal.SIGTERM, 0)
    assert processes.wait(HANG_SECONDS) == [143, 143]
    done = load_checkpoint(run)["step"]
    assert done > 8
    assert len(processes.errors()) == 1
    full = BESIDE + DISK_FULL.format(rank=1, name=f"step_{done + 5:08d}")
    processes = start(2, "resume", str(run), fault=full)
    assert processes.wait(HANG_SECONDS) == [2, 2]
    [line] = processes.errors()
    assert f"the checkpoint of step {done + 5} cannot be written" in line
    assert load_checkpoint(run)["step"] == done + 4
    if parallel == "fsdp":
        assert_goes_on(run, start, undisturbed)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_disk_is_full(rank: int, begin: Begin, start: Start, undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    processes = begin(DISK_FULL.format(rank=rank, name="step_00000012"), "--train.save-minutes", "0")
    assert processes.wait(HANG_SECONDS) == [2, 2]
    assert processes.errors() == [
        f"evomask: the checkpoint of step 12 cannot be written to {run / 'checkpoints'} (No space left on device in process "
        f"{rank}); step_00000011 is whole: make room, and `evomask resume {run}` goes on from there"
    ]
    assert load_checkpoint(run)["step"] == 11
    if rank == 1:
        assert_goes_on(run, start, undisturbed)


@pytest.mark.parametrize("fault", [AT_IMAGES, AT_STEP], ids=["images", "model"])
@pytest.mark.parametrize("how", ["sleeps", "is stopped"])
def test_one_hangs(fault: str, how: str, begin: Begin, start: Start, undisturbed: Path, tmp_path: Path) -> None:
    what = {"sleeps": "import time; time.sleep(1000)", "is stopped": "import signal; os.kill(os.getpid(), signal.SIGSTOP)"}[how]
    processes = begin(fault.format(rank=1, step=10, what=what), "--train.timeout-seconds", "3", "--train.save-minutes", "0")
    started = time.monotonic()
    while processes.processes[0].exitcode is None and time.monotonic() - started < HANG_SECONDS:
        time.sleep(0.1)
    if how == "is stopped":
        processes.kill(signal.SIGKILL, 1)  # as torchrun does with what is left
    codes = processes.wait(HANG_SECONDS)
    assert codes[0] in (1, 2), "whoever finds out first ends first"
    assert len(processes.errors()) == 1, processes.errors()
    [line] = processes.errors()
    assert "in step 10" in line
    place = {AT_IMAGES: "images", AT_STEP: "the model"}[fault]
    assert f"late is process 1 on {os.uname().nodename} (pid {processes.processes[1].pid}), at {place} of step 10" in line
    assert load_checkpoint(tmp_path / "run")["step"] == 10
    if how == "sleeps" and fault == AT_STEP:
        assert_goes_on(tmp_path / "run", start, undisturbed)


FINDS_OUT_LATE = """
from evomask.engine.watch import Watch
plain_at = Watch.at
def at(self, *what, **how):
    plain_at(self, *what, **how)
    self._deadline += 0.3 * rank
Watch.at = at
"""


def said_where_one_hangs(begin: Begin, fault: str) -> str:
    """The line in which two processes that find out in their own ways say that the second one hangs at its images."""
    hangs = AT_IMAGES.format(rank=1, step=10, what="import time; time.sleep(1000)")
    processes = begin(fault + hangs, "--train.timeout-seconds", "3", "--train.save-minutes", "0")
    assert processes.wait(HANG_SECONDS) == [1, 1]
    assert len(processes.errors()) == 1, processes.errors()
    return processes.errors()[0]


def test_the_first_process_waits_until_the_others_know_that_it_has_said_it(begin: Begin) -> None:
    """Without torchrun it is the one that keeps word of who has; the other one of the two would say it once more."""
    assert "process 0 waits at the others' images" in said_where_one_hangs(begin, FINDS_OUT_LATE)


ASKS_SLOWLY = """
import time
from evomask.engine.watch import Watch
plain_at, plain_who = Watch.at, Watch._who_is_late
def at(self, *what, **how):
    plain_at(self, *what, **how)
    self._deadline += 0.3 * (1 - rank)
def who_is_late(self, store):
    time.sleep(1.0 * rank)
    return plain_who(self, store)
Watch.at, Watch._who_is_late = at, who_is_late
"""


def test_the_first_process_does_not_end_while_another_one_still_asks_it_who_is_late(begin: Begin) -> None:
    assert "late is process 1" in said_where_one_hangs(begin, ASKS_SLOWLY)


NOT_FINITE = """
from evomask.engine.pretrain import PretrainStep
import dataclasses
plain, calls = PretrainStep.__call__, 0
def fault(self, batch, progress):
    global calls
    calls += 1
    result = plain(self, batch, progress)
    step, part = divmod(calls - 1, {parts_each})
    if step in {steps} and rank * {parts_each} + part == 3:
        result = dataclasses.replace(result, loss={spoil})
    return result
PretrainStep.__call__ = fault
"""


@pytest.mark.parametrize("spoil", ["result.loss * float('nan')", "result.loss + float('inf')"])
def test_a_loss_that_is_not_finite_in_one(spoil: str, begin: Begin, start: Start, tiny: list[str], tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    fault = {"steps": "(10, 17)", "spoil": spoil}
    single = start(1, "pretrain", "demo", "--out", str(alone), *tiny, *SHORT, fault=NOT_FINITE.format(parts_each=4, **fault))
    processes = begin(NOT_FINITE.format(parts_each=2, **fault))
    assert processes.wait() == [0, 0], processes.errors()
    assert single.wait() == [0], single.errors()
    rows, expected = read_metrics(tmp_path / "run"), read_metrics(alone)
    assert [row["step"] for row in rows if "loss" not in row] == [10, 17]
    assert rows[-1]["skipped_steps"] == 2
    for row, other in zip(rows, expected, strict=True):
        assert row.get("loss") == (pytest.approx(other["loss"], abs=1e-5) if "loss" in other else None)


def test_losses_that_are_not_finite_stop_all(begin: Begin, tmp_path: Path) -> None:
    fault = NOT_FINITE.format(parts_each=2, steps="range(9, 99)", spoil="result.loss * float('nan')")
    processes = begin(fault)
    assert processes.wait(HANG_SECONDS) == [2, 2]
    [line] = processes.errors()
    assert "the loss was not finite in 5 steps in a row, 9 to 13" in line
    listed = eval((tmp_path / "run/nonfinite_batches.json").read_text())
    assert [len(set(samples)) for samples in listed.values()] == [8] * 5, "those of all processes"
    assert load_checkpoint(tmp_path / "run")["step"] == 14


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (AT_IMAGES.format(rank=1, step=10, what="raise ValueError('the disk of this machine is gone')"), "is gone (process 1)"),
        (AT_IMAGES.format(rank=0, step=10, what="raise OSError('the disk is gone')"), "the disk is gone"),
    ],
)
def test_an_error_in_one_saves_and_ends_all(
    fault: str, message: str, begin: Begin, start: Start, undisturbed: Path, tmp_path: Path
) -> None:
    processes = begin(fault)
    assert processes.wait(HANG_SECONDS) == [2, 2]
    [line] = processes.errors()
    assert line.endswith(message)
    assert load_checkpoint(tmp_path / "run")["step"] == 10
    if "process 1" in message:
        assert_goes_on(tmp_path / "run", start, undisturbed, ranks=1)


def test_a_mistake_of_ours_in_one_shows_where_it_is_and_ends_all(start: Start, tiny: list[str], tmp_path: Path) -> None:
    fault = "from evomask.figures import report\nfrom evomask.recipes import hooks\n"
    fault += "def broken(run):\n    raise KeyError('a mistake in the report')\nhooks.write_report = broken"
    processes = start(2, "pretrain", "demo", "--out", str(tmp_path / "run"), *tiny, *SHORT, fault=fault)
    assert processes.wait(HANG_SECONDS) == [2, 2]
    errors = processes.errors()
    assert errors[0] == "evomask: process 0 failed"
    assert "KeyError: 'a mistake in the report'" in errors
    assert load_checkpoint(tmp_path / "run")["step"] == STEPS


def photos(folder: Path, count: int, broken: list[int]) -> Path:
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(count):
        path = folder / f"{number:03}.png"
        Image.fromarray(generator.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(path)
        if number in broken:
            path.write_bytes(path.read_bytes()[:100])
    return folder


def test_a_file_that_cannot_be_read(start: Start, tiny: list[str], tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 104, broken=[17])
    found = {}
    for ranks in (1, 2):
        run = tmp_path / str(ranks)
        options = ["--data.root", str(root), "--train.epochs", "2"]
        processes = start(ranks, "pretrain", "demo", "--out", str(run), *tiny, *options)
        assert processes.wait() == [0] * ranks, processes.errors()
        named = [line for line in processes.errors() if "017.png cannot be read and is replaced by another image" in line]
        assert len(named) in range(1, ranks + 1), "each process that meets it says so once"
        found[ranks] = [row["loss"] for row in read_metrics(run)]
    assert found[2] == pytest.approx(found[1], abs=1e-5)


def test_too_many_files_that_cannot_be_read(start: Start, tiny: list[str], tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", 64, broken=[1, 2])
    run = tmp_path / "run"
    processes = start(2, "pretrain", "demo", "--out", str(run), *tiny, "--data.root", str(root))
    assert processes.wait(HANG_SECONDS) == [2, 2]
    said = [line for line in processes.errors() if "is replaced by another image" not in line]
    assert len(said) == 1
    assert "of 64 files cannot be read, more than 1%" in said[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "dem"], "no recipe 'dem': did you mean 'demo'?"),
        (["pretrain", "demo", "--train.epoch", "3"], "(did you mean --train.epochs"),
        (["pretrain", "demo", "--data.root", "/nowhere"], "/nowhere"),
        (["pretrain", "demo", "--train.batch-size", "3"], "a batch of 3 cannot be shared out to 2 processes"),
        (["pretrain", "demo", "--train.device", "cuda:9"], "device 'cuda:9' cannot be used here"),
        (["pretrain", "demo", "--out", "{taken}"], "exists and is not empty"),
        (["resume", "/nowhere"], "/nowhere is no run folder"),
        (["evaluate", "knn", "--encoder", "/nowhere"], "no encoder '/nowhere'"),
    ],
)
def test_a_mistake_is_said_once(arguments: list[str], message: str, start: Start, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/file").touch()
    filled = [argument.format(taken=tmp_path / "taken") for argument in arguments]
    processes = start(2, *filled)
    assert processes.wait(HANG_SECONDS) == [2, 2]
    [line] = processes.errors()
    assert line.startswith("evomask: ")
    assert message in line


def test_another_run_in_the_same_folder(begin: Begin, start: Start, tmp_path: Path) -> None:
    processes = begin(AT_IMAGES.format(rank=1, step=10, what="import time; time.sleep(1000)"))
    processes.wait_for_step(tmp_path / "run", 9)
    second = start(2, "resume", str(tmp_path / "run"))
    assert second.wait(HANG_SECONDS) == [2, 2]
    [line] = second.errors()
    assert "another process is training in" in line
    processes.end()
