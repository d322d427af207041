"""The comparison of encoders by retrieval: what is asked of evomask, and the table by hand."""

import importlib.util
import json
import statistics
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "retrieval.py"
PRECISION = {"evolved": 0.4, "random": 0.3, "none": 0.1}


@pytest.fixture
def benchmark_script():
    spec = importlib.util.spec_from_file_location("retrieval_benchmark", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_half_is_tested_before_and_after(
    benchmark_script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def evomask(arguments: list[str]) -> int:
        asked.append(arguments)
        out = Path(arguments[-1])
        out.mkdir(parents=True)
        (out / "result.json").write_text("{}")
        precision = PRECISION[out.name.split("-")[1]] + (0.2 if "after" in out.name else 0)
        rows = [{"average_precision": precision + shift} for shift in (0.0, 0.1 if "random" in out.name else 0.0)]
        (out / "nearest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return 0

    monkeypatch.setattr(benchmark_script, "evomask", evomask)
    command = ["retrieval.py", "--labels", "labels.csv", "--out", str(tmp_path), "--evaluate=--loop.epochs 2"]
    encoders = ["evolved=a-0", "evolved=a-1", "random=b", "none=untrained:a-0"]
    monkeypatch.setattr(sys, "argv", [*command, "--encoders", *encoders])
    benchmark_script.main()
    assert len(asked) == 4 * 2 * 2
    first = asked[0]
    assert first[:6] == ["evaluate", "retrieval_small", "--encoder", "a-0", "--labels", "labels.csv"]
    assert first[6:-2] == ["--half", "first", "--finetune", "False", "--loop.epochs", "2"]
    half = 1.96 * statistics.stdev([10, 0, 10, 0]) / 2
    assert capsys.readouterr().out.splitlines() == [
        "| mAP, % | before | after |",
        "|---|---|---|",
        "| evolved | 40.0 | 60.0 |",
        "| random | 35.0 | 55.0 |",
        "| none | 10.0 | 30.0 |",
        f"| evolved less random | +5.0 ± {half:.1f} | +5.0 ± {half:.1f} |",
        "| evolved less none | +30.0 ± 0.0 | +30.0 ± 0.0 |",
    ]
    benchmark_script.main()
    assert len(asked) == 16, "what is finished is not done again"
