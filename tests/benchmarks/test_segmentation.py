"""The table of masks on CamVid: every command is done once, and the numbers are the runs'."""

import importlib
import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


def test_every_command_is_done_once_and_the_table_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    for name in ("segmentation", "pretraining"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    script = importlib.import_module("segmentation")
    commands: list[tuple[str, ...]] = []
    of_encoder = {"evolved-0": 40.0, "evolved-1": 44.0, "random-0": 38.0, "random-1": 42.0}

    def run_evomask(*arguments: str) -> None:
        commands.append(arguments)
        out = Path(arguments[-1])
        out.mkdir()
        value = of_encoder.get(Path(arguments[3]).name, 0.0) if ":" not in arguments[3] else 30.0
        metrics = {"mIoU": value, "aAcc": 2 * value, "mAcc": value + 1, "IoU of sky": 1.0}
        (out / "result.json").write_text(json.dumps({"metrics": metrics}))

    monkeypatch.setattr(importlib.import_module("pretraining"), "run_evomask", run_evomask)
    flags = ["--camvid", str(tmp_path / "camvid"), "--runs", "runs", "--out", str(tmp_path / "out"), "--seeds", "0", "1"]
    monkeypatch.setattr(sys, "argv", ["segmentation.py", *flags, "--evaluate=--loop.epochs 3"])
    script.main()
    assert len(commands) == 6
    assert [command[3] for command in commands[:3]] == ["runs/evolved-0", "runs/random-0", "untrained:runs/evolved-0"]
    assert all(command[:3] == ("evaluate", "segmentation_small", "--encoder") for command in commands)
    assert all("--loop.epochs" in command for command in commands)
    assert len((tmp_path / "out/classes.txt").read_text().splitlines()) == 11
    table = capsys.readouterr().out
    assert "| evolved | 42.0 ± 25.4 | 84.0 ± 50.8 | 43.0 ± 25.4 |" in table  # 12.706 * sqrt(8) / sqrt(2)
    assert "| evolved less random | +2.0 ± 0.0 | +4.0 ± 0.0 | +2.0 ± 0.0 |" in table
    script.main()
    assert len(commands) == 6
