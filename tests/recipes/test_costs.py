"""Section V-E's costs: shares worked out by hand, and the table beside the paper's figures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evomask.benchmarks.comparison import Comparison, Row
from evomask.benchmarks.overhead import WITH_EVOLVED, OverheadConfig, compare_with_evolved
from evomask.cli import main
from evomask.recipes import costs
from evomask.recipes.costs import Share, shares_of_a_step

# A step with evolved masks takes 200 ms, one with random masks 180.
ROWS = [
    Row("evolved masks", 200.0, 1.0, 1.0, 1.0),
    Row("random masks", 180.0, 0.9, 0.88, 0.95),
    Row("attention alone", 16.0, 0.08, 0.07, 0.1),
    Row("tree, cut and selection", 1.0, 0.005, 0.004, 0.006),
]


def test_shares_are_those_of_a_step_with_evolved_masks() -> None:
    found = shares_of_a_step({row.name: row for row in ROWS})
    assert found["masks, time"] == pytest.approx(Share(10.0, 5.0, 12.0))
    assert found["attention, time"] == pytest.approx(Share(8.0, 7.0, 10.0))
    assert found["tree, time"] == pytest.approx(Share(0.5, 0.4, 0.6))
    assert found["masks, memory"] is None
    peaks = dict(zip(WITH_EVOLVED, (4000.0, 3900.0, 60.0, 20.0), strict=True))
    on_gpu = shares_of_a_step({row.name: replace(row, peak_mib=peaks[row.name]) for row in ROWS})
    assert on_gpu["masks, memory"] == pytest.approx(Share(1.5, 1.5, 1.5)), "the larger of the two, of 4,000 MiB"


def test_steps_are_really_taken() -> None:
    config = OverheadConfig(vit="vit_tiny_patch16_224", patch_size=32, batch_size=4, turns=1, device="cpu")
    rows = {row.name: row for row in compare_with_evolved(config).rows}
    assert tuple(rows) == WITH_EVOLVED
    assert rows["evolved masks"].ratio == 1 and all(row.milliseconds > 0 for row in rows.values())


def test_the_table_has_the_papers_figure_beside_the_measured_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[OverheadConfig] = []

    def compare(config: OverheadConfig) -> Comparison:
        asked.append(config)
        return Comparison("a model", ROWS)

    monkeypatch.setattr(costs, "compare_with_evolved", compare)
    command = ["reproduce", "costs", "--scale", "micro", "--out", str(tmp_path / "out"), "--json", str(tmp_path / "rows.json")]
    assert main(command) == 0
    assert main(command) == 0, "the same command may be given again"
    assert capsys.readouterr().out == 2 * f"{tmp_path / 'out' / 'costs-micro.md'}\n"
    assert asked[0].batch_size == 16
    lines = (tmp_path / "out" / "costs-micro.md").read_text().splitlines()
    assert lines[2:8] == [
        "| % of a step | paper | micro |",
        "|---|---|---|",
        "| masks, time | 8.1 | 10 (5 to 12) |",
        "| attention, time | 7.9 | 8 (7 to 10) |",
        "| tree, time | 0.2 | 0.5 (0.4 to 0.6) |",
        "| masks, memory | 1.3 | not measured |",
    ]
    assert f"torch {torch.__version__.split('+')[0]}" in lines[-3]
    assert [row["paper"] for row in json.loads((tmp_path / "rows.json").read_text())] == [8.1, 7.9, 0.2, 1.3]
    assert len((tmp_path / "out" / "costs-micro.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--turns", "0"], "--turns must be at least 1"),
        (["--device", "gpu"], "'gpu'"),
        (["--json", "{other}"], "exists, and is no table of figures: choose another --json"),
        (["--seeds", "1"], "--seeds"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other").write_text("mine")
    words = [word.format(other=tmp_path / "other") for word in arguments]
    assert main(["reproduce", "costs", "--scale", "micro", "--out", str(tmp_path / "out"), *words]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["other"] and (tmp_path / "other").read_text() == "mine"
