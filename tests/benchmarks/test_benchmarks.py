"""The benchmarks compare the same work, and run from end to end at the smallest size."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from scipy.cluster.hierarchy import linkage

from evomask.benchmarks import step
from evomask.benchmarks.hierarchy import (
    HierarchyConfig,
    _condensed_distance,
    attention_of_scenes,
    compare_hierarchies,
    greedy_merges,
    reference_trees,
)
from evomask.cli import main
from evomask.masking import build_hierarchy


def test_all_candidates_make_the_same_trees() -> None:
    affinity = attention_of_scenes(5, 2, torch.device("cpu"))
    ours, reference = build_hierarchy(affinity), reference_trees(affinity)
    assert torch.equal(ours.children, reference.children)
    for image, matrix in enumerate(affinity.double().numpy()):
        expected = linkage(_condensed_distance(matrix), "weighted")
        assert ours.children[image].tolist() == [sorted(pair) for pair in expected[:, :2].astype(int).tolist()]
        node = dict(enumerate(range(25)))
        for merge, (kept, dead) in enumerate(greedy_merges(affinity)[image].tolist()):
            assert sorted((node[kept], node[dead])) == ours.children[image, merge].tolist()
            node[kept] = 25 + merge


def test_trees_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastcluster")
    (table,) = compare_hierarchies(HierarchyConfig(patches=(16,), images=2, turns=1, device="cpu"))
    assert len(table.rows) == 7
    assert all(row.milliseconds > 0 for row in table.rows)


@pytest.mark.parametrize("name", ["hierarchy", "step"])
def test_a_peer_that_is_missing_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, {"hierarchy": "fastcluster", "step": "transformers"}[name], None)
    vit = [] if name == "hierarchy" else ["--vit", "vit_tiny_patch16_224", "--batch-size", "1"]
    assert main(["bench", name, *vit]) == 2
    assert "pip install 'evomask[bench]'" in capsys.readouterr().err


def test_overhead_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "overhead", "--vit", "vit_tiny_patch16_224", "--batch-size", "2", "--turns", "1", "--device", "cpu"]
    assert main([*command, "--json", str(tmp_path / "rows.json")]) == 0
    assert "step with evolved masks" in capsys.readouterr().out
    record = json.loads((tmp_path / "rows.json").read_text())
    names = [row["name"] for row in record["rows"]]
    assert names == [
        "step with random masks",
        "step with evolved masks",
        "attention alone",
        "tree alone",
        "tree, cut and selection",
    ]
    assert record["versions"]["torch"] == version("torch")
    assert main([*command, "--json", str(tmp_path / "rows.json")]) == 2
    assert "rows.json exists: choose another --json" in capsys.readouterr().err


def test_steps_are_compared() -> None:
    pytest.importorskip("lightly")
    config = step.StepConfig(vit="vit_tiny_patch16_224", batch_size=2, turns=1, device="cpu")
    (table,) = step.compare_steps(config)
    assert [row.name for row in table.rows] == ["evomask", "transformers", "lightly"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("bench hierarchi", "did you mean 'hierarchy'"),
        ("bench hierarchy --patches 50", "square numbers"),
        ("bench hierarchy --images 0", "at least 1"),
        ("bench step --turns 0", "at least 1"),
        ("bench overhead --vit vit_smal", "vit_smal"),
        ("bench overhead --patch-size 15", "divide"),
    ],
)
def test_mistakes_are_one_line(arguments: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
