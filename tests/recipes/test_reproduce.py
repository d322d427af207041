"""Rerunning a table: in which order commands run, what is left alone, goes on, fails or is stopped; and what the table says."""

import csv
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomask.cli import main
from evomask.recipes import reproduce as reproduction
from evomask.recipes import table_log
from evomask.recipes.reproduce import Interrupted, Wanted, dry_run, reproduce
from evomask.recipes.tables import TABLES, Table

# Stands in for evomask: writes down what it was asked, and leaves the folder of a run or of a result behind.
EVOMASK = """
import json, os, shlex, signal, sys, time
from pathlib import Path
arguments = sys.argv[1:]
told = json.loads(Path(os.environ["TOLD"]).read_text())
with open(os.environ["ASKED"], "a") as file:
    file.write(shlex.join(arguments) + "\\n")
with open(os.environ["ASKED"] + "-on", "a") as file:
    file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "as it is") + "\\n")
resumes = arguments[0] == "resume"
folder = Path(arguments[-1])
folder.mkdir(parents=True, exist_ok=resumes)
if not resumes:
    record = {"command": shlex.join(["evomask", *arguments]), "started": "2026-11-27T20:15:31+00:00"}
    record |= {"machine": "x86_64 Linux", "versions": {"torch": "2.15.0"}}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"loss": 1 - 0.1 * step}) + "\\n" for step in range(11)))
kind = next((kind for name, kind in told.items() if name in str(folder)), "")
if kind == "fails":
    sys.exit("evomask: there is something wrong")
if kind == "waits" and not resumes:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    Path(os.environ["ASKED"]).with_name("waits").touch()
    time.sleep(60)
if folder.parent.name == "runs":
    (folder / "result.json").write_text(json.dumps({"metrics": {}}))
else:
    seed = folder.name.split("-")[1]
    seed = int(seed) if seed.isdecimal() else 0
    better = 10 * ("evolved" in folder.name)
    metrics = {"top1": 50 + seed + better, "mIoU": 20 + seed * seed + better}
    (folder / "result.json").write_text(json.dumps({"metrics": metrics}))
"""

TWO_ROWS = Table(title="two", columns=TABLES["table2"].columns, rows=TABLES["table2"].rows[:2])
NAMES = ["vit_small_mae_random_ratio25_300", "vit_small_mae_evolved_ratio25_300"]


@pytest.fixture
def wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wanted:
    monkeypatch.setitem(TABLES, "two", TWO_ROWS)
    for folder in ("imagenette112", "camvid/images", "camvid/annotations"):
        for split in ("train", "val"):
            (tmp_path / "data" / folder / split).mkdir(parents=True)
    (tmp_path / "asked").touch()
    (tmp_path / "evomask.py").write_text(EVOMASK)
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("TOLD", str(tmp_path / "told"))
    tell(tmp_path)
    return Wanted(table="two", scale="micro", data=tmp_path / "data", out=tmp_path / "out", seeds=(0, 1, 2))


def tell(folder: Path, **what: str) -> None:
    (folder / "told").write_text(json.dumps(what))


@pytest.fixture
def rerun(wanted: Wanted, tmp_path: Path) -> Callable[..., list[str]]:
    """Reproduce; returns what this call asked for, in order: pretrain, evaluate or resume, and the folder."""

    def run(**options: Any) -> list[str]:
        before = len((tmp_path / "asked").read_text().splitlines())
        launcher = (sys.executable, str(tmp_path / "evomask.py"))
        try:
            reproduce(replace(wanted, **options.pop("wanted", {})), launcher=launcher, **options)
        finally:
            lines = (tmp_path / "asked").read_text().splitlines()[before:]
            run.asked = [f"{line.split()[0]} {line.rpartition('/')[2]}" for line in lines]
        return run.asked

    return run


def test_pretrainings_come_before_evaluations_and_nothing_is_done_twice(rerun: Any, wanted: Wanted) -> None:
    asked = rerun()
    assert len(asked) == 18 == len(set(asked))
    for name in NAMES:
        for seed in range(3):
            begin = asked.index(f"pretrain {name}-{seed}")
            assert asked[begin + 1 : begin + 3] == [f"evaluate {name}-{seed}-{kind}" for kind in ("finetune", "segmentation")]
    assert rerun() == []
    (wanted.out / f"results/{NAMES[0]}-1-finetune/result.json").unlink()
    assert rerun() == [f"resume {NAMES[0]}-1-finetune"], "what was broken off goes on"
    assert rerun(wanted={"seeds": (0, 3)}, jobs=3) != [] and len(rerun.asked) == 6, "a further seed"


def test_a_page_about_an_unfinished_run_does_not_make_it_finished(rerun: Any, wanted: Wanted, tmp_path: Path) -> None:
    tell(tmp_path, **{f"runs/{NAMES[0]}-0": "fails"})
    with pytest.raises(ValueError, match="there is something wrong"):
        rerun(wanted={"seeds": (0,)})
    (wanted.out / f"runs/{NAMES[0]}-0/report.html").touch()  # `evomask report` has written it
    tell(tmp_path)
    assert rerun(wanted={"seeds": (0,)})[0] == f"resume {NAMES[0]}-0"


@pytest.mark.parametrize(
    ("visible", "jobs", "expected"),
    [
        (None, 2, {"0", "1"}),
        ("5,GPU-7", 2, {"5", "GPU-7"}),
        ("5,GPU-7", 1, {"5,GPU-7"}),
        (None, 1, {"as it is"}),
    ],
)
def test_each_of_several_jobs_has_a_gpu_of_its_own(
    visible: str | None, jobs: int, expected: set[str], wanted: Wanted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    evomask = tmp_path / "bin" / "evomask"
    evomask.mkdir(parents=True)
    (evomask / "__init__.py").touch()
    (evomask / "cli.py").write_text(EVOMASK)  # in the place of the real one, as nothing else starts it
    monkeypatch.setenv("PYTHONPATH", str(evomask.parent))
    reproduce(wanted, jobs=jobs)
    told = (tmp_path / "asked-on").read_text().splitlines()
    assert len(told) == 18 and set(told) == expected


def test_what_starts_evomask_on_several_gpus_sees_them_all(rerun: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    rerun(jobs=2)
    assert set((tmp_path / "asked-on").read_text().splitlines()) == {"as it is"}


def test_the_same_command_brings_its_json_up_to_date_and_overwrites_nothing_else(rerun: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.json"
    rerun(json_file=rows, wanted={"evaluations": ("finetune",)})
    rerun(json_file=rows)
    assert all(row["measured"] is not None for row in json.loads(rows.read_text()))
    for other in ('{"images": []}', '[{"row": 1}]', "# notes"):
        rows.write_text(other)
        with pytest.raises(ValueError, match="exists, and is no table of figures: choose another --json"):
            rerun(json_file=rows)
        assert rows.read_text() == other
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere: make it, or choose another --json"):
        rerun(json_file=tmp_path / "nowhere" / "rows.json")


def test_some_evaluations_are_run_first_and_the_table_keeps_the_others(rerun: Any, wanted: Wanted) -> None:
    asked = rerun(wanted={"evaluations": ("segmentation",), "seeds": (0,)})
    assert [line.rpartition("-")[2] for line in asked] == ["0", "segmentation"] * 2
    asked = rerun(wanted={"evaluations": ("finetune",), "seeds": (0,)})
    assert asked == [f"evaluate {name}-0-finetune" for name in NAMES]
    assert "4 of 4 figures are there" in (wanted.out / "two-micro.md").read_text()
    with pytest.raises(ValueError, match="--evaluations knn: two has finetune, segmentation at this scale"):
        rerun(wanted={"evaluations": ("knn",)})


def test_the_table_has_the_papers_figure_beside_the_measured_one(rerun: Any, wanted: Wanted, tmp_path: Path) -> None:
    rerun(json_file=tmp_path / "rows.json")
    text = (wanted.out / "two-micro.md").read_text()
    lines = text.splitlines()
    assert lines[2] == "| | classification, top-1: paper | micro | segmentation, mIoU: paper | micro |"
    # Of 50, 51 and 52 the mean is 51 and the deviation 1: 4.303 / sqrt(3) = 2.48. Of 20, 21 and 24 they are 21.67 and 2.08.
    assert lines[4] == "| random, 0.25 | 77.19 | 51.0 ± 2.5 | 36.23 | 21.7 ± 5.2 |"
    assert lines[5] == "| evolved, 0.25 | 78.96 | 61.0 ± 2.5 | 38.14 | 31.7 ± 5.2 |"
    assert lines[6] == "| evolved, 0.25 less random, 0.25 | +1.77 | +10.0 ± 0.0 | +1.91 | +10.0 ± 0.0 |", "paired, seeds cancel"
    assert "Seeds 0, 1, 2; 12 of 12 figures are there." in text
    assert "evomask pretrain vit_tiny_mae_112 --host.encoder.image-size 64 64" in text
    with (wanted.out / "two-micro.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    assert (rows[2]["row"], rows[2]["seed"], rows[2]["measured"], rows[2]["paper"]) == ("random, 0.25", "1", "51", "77.19")
    assert (
        rows[2]["commands"].startswith("evomask pretrain") and " && evomask evaluate finetune_few_labels" in rows[2]["commands"]
    )
    assert [row["measured"] for row in json.loads((tmp_path / "rows.json").read_text())] == [
        float(row["measured"]) for row in rows
    ]
    log = text[text.index("## Runs") : text.index("## Commands")].splitlines()
    assert log[2].startswith("18 commands, 0.0 hours in all.")
    assert log[6] == f"| {NAMES[0]}-0 | 2026-11-27 20:15 | 0.0 | 0.95 0.75 0.5 0.25 0.05 |"
    assert log[-2] == "Machine: x86_64 Linux, torch 2.15.0."
    done = [json.loads(line) for line in (wanted.out / "commands.jsonl").read_text().splitlines()]
    assert len(done) == 18 and {row["code"] for row in done} == {0}


def test_a_step_that_was_left_out_is_no_part_of_a_curve(tmp_path: Path) -> None:
    rows = [{"step": step, "loss": loss} for step, loss in enumerate((0.9, None, 0.7, 0.5, 0.3, 0.1))]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert table_log._curve(tmp_path) == "0.9 0.7 0.5 0.3 0.1"


def test_of_what_was_left_out_nothing_is_asked(rerun: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beit = [row for row in TABLES["table8"].rows if row.title == "BEiT"]
    monkeypatch.setitem(TABLES, "two", Table(title="one", columns=TABLES["table8"].columns, rows=tuple(beit)))
    tell(tmp_path, tokenizer="fails")
    with pytest.raises(ValueError, match=r"failed \(there is something wrong; [^;]*; .*two-micro.md") as raised:
        rerun(wanted={"seeds": (0,)})
    assert rerun.asked == ["train-tokenizer tokenizer"], "neither the pretraining nor what is asked of it"
    assert "more" not in str(raised.value)


def test_what_cannot_be_read_is_done_again(rerun: Any, wanted: Wanted) -> None:
    rerun(wanted={"seeds": (0,)})
    (wanted.out / f"results/{NAMES[0]}-0-finetune/result.json").write_text('{"metr')  # the disk was full
    with (wanted.out / "commands.jsonl").open("a") as file:
        file.write('{"comm\n')
    assert rerun(wanted={"seeds": (0,)}) == [f"resume {NAMES[0]}-0-finetune"]
    assert "4 of 4 figures are there" in (wanted.out / "two-micro.md").read_text()


def test_what_fails_is_named_and_everything_else_is_done(rerun: Any, wanted: Wanted, tmp_path: Path) -> None:
    tell(tmp_path, **{f"runs/{NAMES[0]}-1": "fails", f"{NAMES[1]}-2-finetune": "fails"})
    with pytest.raises(
        ValueError, match=r"failed \(there is something wrong; all of it in .*/logs/.*, and 1 more; .*two-micro.md"
    ):
        rerun()
    assert len(rerun.asked) == 16, "not the two evaluations of the run that failed"
    text = (wanted.out / "two-micro.md").read_text()
    assert "9 of 12 figures are there" in text
    # Of 50 and 52: 12.706 x 1.414 / sqrt(2); both rows have seed 0 alone.
    assert "| random, 0.25 | 77.19 | 51.0 ± 12.7 (2 of 3 seeds) |" in text
    assert "| evolved, 0.25 less random, 0.25 | +1.77 | +10.0 (1 of 3 seeds) |" in text
    tell(tmp_path)
    evaluations = [f"evaluate {NAMES[0]}-1-{kind}" for kind in ("finetune", "segmentation")]
    assert rerun() == [f"resume {NAMES[0]}-1", *evaluations, f"resume {NAMES[1]}-2-finetune"]


def test_when_time_is_up_all_is_saved_and_the_same_command_goes_on(rerun: Any, wanted: Wanted, tmp_path: Path) -> None:
    tell(tmp_path, **{f"runs/{NAMES[0]}-0": "waits"})
    with pytest.raises(Interrupted) as stopped:
        rerun(minutes=5 / 60)
    assert stopped.value.signum == signal.SIGTERM
    assert rerun.asked == [f"pretrain {NAMES[0]}-0"], "nothing is begun after the one that was stopped"
    assert rerun(jobs=2).count(f"resume {NAMES[0]}-0") == 1
    assert "12 of 12" in (wanted.out / "two-micro.md").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_passed_on(rerun: Any, tmp_path: Path, number: signal.Signals) -> None:
    tell(tmp_path, **{f"runs/{NAMES[0]}-0": "waits"})

    def interrupt() -> None:
        while not (tmp_path / "waits").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), number)

    before = signal.signal(number, signal.SIG_DFL)  # these tests may have been begun with nohup
    interrupting = threading.Thread(target=interrupt, daemon=True)
    interrupting.start()
    try:
        with pytest.raises(Interrupted, match="the same command goes on") as stopped:
            rerun()
    finally:
        interrupting.join(timeout=60)
        signal.signal(number, before)
    assert stopped.value.signum == number
    assert rerun.asked == [f"pretrain {NAMES[0]}-0"]


def test_under_nohup_a_closed_terminal_stops_nothing(rerun: Any, tmp_path: Path) -> None:
    def hang_up() -> None:
        while not (tmp_path / "asked").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGHUP)

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    hanging_up = threading.Thread(target=hang_up, daemon=True)
    hanging_up.start()
    try:
        assert len(rerun(wanted={"seeds": (0,)})) == 6
    finally:
        hanging_up.join(timeout=60)
        signal.signal(signal.SIGHUP, before)


def test_folders_of_other_commands_are_left_alone(rerun: Any, wanted: Wanted) -> None:
    rerun(wanted={"seeds": (0,)})
    with pytest.raises(
        ValueError, match=r"was made by another command, `evomask pretrain .*: choose another --out, or delete it"
    ):
        rerun(wanted={"seeds": (0,), "pretrain": ("--train.epochs", "2")})
    assert rerun.asked == []


def test_a_dry_run_names_what_fails_and_leaves_nothing(wanted: Wanted, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(reproduction.tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    launcher = (sys.executable, str(tmp_path / "evomask.py"))
    assert dry_run(wanted, launcher=launcher) == 4, "each pretraining, and each evaluation of one of them"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert all("--data.root" not in line and "--train " not in line for line in asked)
    assert len([line for line in asked if "--data.scenes 2" in line]) == 2
    tell(tmp_path, segmentation="fails")
    with pytest.raises(ValueError, match=r"`evomask evaluate segmentation_small .* failed"):
        dry_run(wanted, launcher=launcher)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_one_row_really_takes_a_step(wanted: Wanted, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    one = Table(title="one", columns=TWO_ROWS.columns[1:], rows=TWO_ROWS.rows[1:])
    monkeypatch.setitem(TABLES, "two", one)
    assert main(["reproduce", "two", "--scale", "micro", "--dry-run", "True"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out == "2 commands took a step\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tabel1"], "no table 'tabel1': did you mean 'table1'?"),
        (["table1", "--scale", "tiny"], "tiny"),
        (["table1", "--data", "/nowhere"], "/nowhere is no folder: --data names that of the data sets, see docs/reproduce.md"),
        (["table1", "--jobs", "0"], "--jobs 0 and 3 --seeds: there has to be at least one of each"),
        (["table1", "--data", ".", "--json", "{taken}"], "taken exists, and is no table of figures: choose another --json"),
        (["table1", "--seed", "3"], "did you mean --seeds"),
        (["table1", "--data", ".", "--seeds", "0", "0"], "--seeds are different numbers from 0 on, not 0 0"),
        (["table1", "--data", ".", "--seeds", "-1"], "--seeds are different numbers from 0 on, not -1"),
        (["table1", "--data", ".", "--minutes", "-1"], "--minutes must be above 0, not -1"),
        (["table1", "--data", ".", "--launcher=nosuch -n 2"], "--launcher: there is no program nosuch"),
        (["table1", "--data", "{here}"], "/imagenette112/train, nor 9 more of what it needs: docs/reproduce.md says what is"),
        (["table1", "--data", "."], "there is no imagenette112/train, nor 9 more of what it needs"),
        (["costs", "--scale", "micro", "--out", "{taken}"], "taken cannot be made (File exists): choose another --out"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    assert main(["reproduce", *(word.format(taken=tmp_path / "taken", here=tmp_path) for word in arguments)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
