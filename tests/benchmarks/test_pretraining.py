"""The comparison of masks: every command is done once, "none" is what training starts from, and the table is right."""

import argparse
import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "pretraining.py"


@pytest.fixture
def pretraining():
    spec = importlib.util.spec_from_file_location("pretraining", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_finished_is_left_alone_and_differences_are_paired(pretraining, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(pretraining, "EVALUATIONS", {"kNN": ["knn"]})
    commands: list[tuple[str, ...]] = []

    def run_evomask(*arguments: str) -> None:
        commands.append(arguments)
        out = Path(arguments[arguments.index("--out") + 1])
        out.mkdir()
        seed, kind = int(out.name.split("-")[1]), out.name.split("-")[0]
        top1 = {"evolved": 43.0, "random": 41.0, "none": 30.0}[kind] + 10 * seed
        (out / "result.json").write_text(json.dumps({"metrics": {"top1": top1}}))

    monkeypatch.setattr(pretraining, "run_evomask", run_evomask)
    given = ["--images", "images", "--out", str(tmp_path), "--seeds", "0", "1", "--pretrain=--train.epochs 3"]
    for _ in range(2):
        monkeypatch.setattr("sys.argv", ["pretraining.py", *given])
        pretraining.main()
    assert len(commands) == 4 + 6
    first = commands[0]
    assert first[:2] == ("pretrain", "vit_tiny_mae_112") and first[-4:-2] == ("--train.epochs", "3")
    assert {c[3] for c in commands if c[0] == "evaluate"} == {
        *(str(tmp_path / f"{masks}-{seed}") for masks in ("evolved", "random") for seed in (0, 1)),
        *(f"untrained:{tmp_path / f'evolved-{seed}'}" for seed in (0, 1)),
    }
    arguments = argparse.Namespace(out=tmp_path, masks=["evolved", "random"], seeds=[0, 1])
    lines = pretraining.table(arguments).splitlines()
    assert lines[2:] == [
        "| evolved | 48.0 ± 63.5 |",
        "| random | 46.0 ± 63.5 |",
        "| none | 35.0 ± 63.5 |",
        "| evolved less random | +2.0 ± 0.0 |",
        "| evolved less none | +13.0 ± 0.0 |",
    ]
