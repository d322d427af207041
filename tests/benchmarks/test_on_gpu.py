"""The script of what waits for a GPU: its commands are ones that evomask takes, and what is finished is not done again."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from evomask.cli import main

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "on_gpu.py"


@pytest.fixture
def on_gpu():
    spec = importlib.util.spec_from_file_location("on_gpu", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_is_taken_up_to_the_missing_gpu(on_gpu, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    for name, command in on_gpu.MEASUREMENTS.items():
        if command[1:3] == ["-m", "evomask.cli"] and "cuda" in command:
            assert main([part.replace("{out}", str(tmp_path / name)) for part in command[3:]]) == 2
            assert "cuda" in capsys.readouterr().err, f"{name}: another mistake than the missing GPU"


def test_a_measurement_is_done_once_and_a_failure_does_not_stop_the_rest(on_gpu, tmp_path, monkeypatch) -> None:
    marks = tmp_path / "marks"
    mark = [sys.executable, "-c", f"open({str(marks)!r}, 'a').write('x')"]
    fail = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(on_gpu, "MEASUREMENTS", {"one": fail, "two": mark})
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "--out", str(tmp_path / "out")])
    on_gpu.main()
    on_gpu.main()
    record = json.loads((tmp_path / "out/record.json").read_text())
    assert [record[name]["exit"] for name in ("one", "two")] == [3, 0]
    assert marks.read_text() == "x"


def test_tables_are_taken_up_to_the_missing_data(on_gpu, tmp_path, capsys) -> None:
    (tmp_path / "data").mkdir()
    for command in on_gpu.tables_at_mini(tmp_path / "out", tmp_path / "data").values():
        assert main(command[3:]) == 2
        assert "imagenette112/train, nor 1 more of what it needs" in capsys.readouterr().err


def test_the_list() -> None:
    listed = subprocess.run([sys.executable, SCRIPT, "--list", "overhead"], capture_output=True, text=True, check=True).stdout
    assert listed.count("bench overhead") == 4
