"""The benchmarks compare the same work, and run from end to end at the smallest size."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from evomask.benchmarks import step
from evomask.benchmarks.hierarchy import (
    HierarchyConfig,
    attention_of_scenes,
    compare_hierarchies,
    fastcluster_trees,
    greedy_merges,
)
from evomask.benchmarks.overhead import OPTIONS, OverheadConfig, agreement_with_exact_trees, operations
from evomask.cli import main
from evomask.masking import build_hierarchy
from evomask.models.encoders import Encoder
from evomask.models.export import export_timm
from evomask.models.vit import ViTConfig, build_vit


def test_all_candidates_make_the_same_trees() -> None:
    pytest.importorskip("fastcluster")
    affinity = attention_of_scenes(5, 2, torch.device("cpu"))
    ours, reference = build_hierarchy(affinity), build_hierarchy(affinity, backend="torch")
    assert torch.equal(ours.children, reference.children)
    for image, matrix in enumerate(affinity.numpy()):
        expected = fastcluster_trees(matrix, "weighted")
        assert ours.children[image].tolist() == [sorted(pair) for pair in expected[:, :2].astype(int).tolist()]
        node = dict(enumerate(range(25)))
        for merge, (kept, dead) in enumerate(greedy_merges(affinity)[image].tolist()):
            assert sorted((node[kept], node[dead])) == ours.children[image, merge].tolist()
            node[kept] = 25 + merge


def test_trees_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastcluster")
    (table,) = compare_hierarchies(HierarchyConfig(patches=(16,), images=2, turns=1, device="cpu"))
    assert len(table.rows) == 9
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
    command = ["bench", "overhead", "--vit", "vit_tiny_patch16_224", "--patch-size", "32", "--batch-size", "4"]
    command += ["--turns", "1", "--device", "cpu"]
    assert main([*command, "--json", str(tmp_path / "rows.json")]) == 0
    assert "evolved masks" in capsys.readouterr().out
    record = json.loads((tmp_path / "rows.json").read_text())
    names = [row["name"] for row in record["rows"]]
    parts = ["attention alone", "tree alone", "tree, cut and selection"]
    assert names == ["random masks", "evolved masks", *parts, *OPTIONS]
    assert record["versions"]["torch"] == version("torch")
    assert main([*command, "--json", str(tmp_path / "rows.json")]) == 2
    assert "rows.json exists: choose another --json" in capsys.readouterr().err
    assert main([*command, "--json", str(tmp_path / "nowhere" / "rows.json")]) == 2
    assert "nowhere: make it, or choose another --json" in capsys.readouterr().err


def test_operations_are_those_of_forward_and_backward() -> None:
    layer, x = torch.nn.Linear(7, 5, bias=False), torch.randn(3, 7, requires_grad=True)
    assert operations(lambda: layer(x)) == 2 * 3 * 7 * 5
    assert operations(lambda: layer(x).sum().backward()) == 3 * 2 * 3 * 7 * 5


def test_agreement_of_cheaper_scans_with_the_exact_trees(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    vit = ViTConfig(name="vit_tiny_patch16_224", image_size=(64, 64), patch_size=8, width=48, depth=6, heads=3)
    export_timm(Encoder.of(build_vit(vit), (0.5,) * 3, (0.5,) * 3, "mine"), tmp_path / "timm")
    config = OverheadConfig(encoder=str(tmp_path / "timm"), device="cpu")
    found = agreement_with_exact_trees(config, torch.device("cpu"))
    assert found["evolved masks"] == found["evolved, 4 masks a tree"] == 1
    assert 0 < found["evolved, every 2nd row and column"] < 1
    assert set(found) == {*OPTIONS, "evolved masks", "another image"}


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
