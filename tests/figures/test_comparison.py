import json
import re
from pathlib import Path

import pytest

from evomask.analysis.snapshot import save_images, save_snapshot
from evomask.figures.comparison import names_of, write_comparison
from evomask.figures.report import write_report


def make_run(folder: Path, originals, snapshots, names=("a.png", "b.png"), **settings) -> Path:
    (folder / "results").mkdir(parents=True)
    config = {
        "recipe": "demo",
        "masking": {"strategy": "evolved", "ratio": 0.75},
        "data": {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
        "train": {"epochs": 4, "batch_size": 50},
    }
    for name, value in settings.items():
        part, _, leaf = name.partition("__")
        config[part][leaf] = value
    record = {"command": f"evomask pretrain demo --out {folder.name}", "config": config, "versions": {"torch": "2.11.0"}}
    (folder / "config.json").write_text(json.dumps(record))
    rows = [
        {"step": step, "epoch": step // 10, "loss": 2 - step / 40, "lr": 1e-3, "images_per_second": 25} for step in range(40)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_images(folder / "snapshots" / "images.safetensors", originals, list(names))
    for stage in snapshots:
        save_snapshot(stage, folder / "snapshots" / f"epoch_{stage.epoch:04d}.safetensors")
    (folder / "results" / "knn.json").write_text(json.dumps({"task": "knn", "metrics": {"top1": 60 + len(folder.name)}}))
    return folder


@pytest.fixture
def runs(tmp_path, originals, snapshots) -> list[Path]:
    return [
        make_run(tmp_path / "one", originals, snapshots),
        make_run(tmp_path / "three", originals, snapshots[:2], masking__strategy="random", train__epochs=8),
    ]


def data_of(html: str):
    found = re.search(r'<script type="application/json" id="slider-data">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


def section_of(html: str, name: str) -> str:
    return html.partition(f'<section id="{name}">')[2].partition("</section>")[0]


def test_a_page_holds_what_differs_and_results_side_by_side(runs, tmp_path):
    html = write_comparison(runs, tmp_path / "page.html").read_text()
    rows = re.findall(r"<tr><th scope=row>(.*?)</th>(.*?)</tr>", section_of(html, "differences"))
    differing = {name: re.findall(r">([^<>]*)</td>", cells) for name, cells in rows}
    assert differing == {"masking.strategy": ["evolved", "random"], "train.epochs": ["4", "8"]}
    ((name, cells),) = re.findall(r"<tr><th scope=row>(.*?)</th>(.*?)</tr>", section_of(html, "results"))
    assert (name, re.findall(r">([^<>]*)</td>", cells)) == ("knn: top1", ["63", "65"])
    assert "evomask pretrain demo --out three" in html
    assert html.count('<svg role="img"') == 4  # loss, rate; of the trees balance and largest group


def test_every_image_has_a_layer_for_each_run(runs, tmp_path):
    html = write_comparison(runs, tmp_path / "page.html").read_text()
    for kind in ("cover", "groups"):
        assert re.findall(rf'data-{kind}="([\d-]+)"', html) == ["0-0", "1-0", "0-1", "1-1"]
    data = data_of(html)
    assert data["positions"] == [0, 0.5, 1], "the stages of the run with the most of them, as shares of its training"
    assert [run["epochs"] for run in data["runs"]] == [4, 8]
    assert [[stage["epoch"] for stage in run["stages"]] for run in data["runs"]] == [[0, 2, 4], [0, 2]]
    assert all(stage["restored"] is None for run in data["runs"] for stage in run["stages"])


def test_images_are_matched_by_name(runs, tmp_path, originals, snapshots):
    swapped = make_run(tmp_path / "swapped", originals.flip(0), snapshots, names=("b.png", "a.png"))
    html = write_comparison([runs[0], swapped], tmp_path / "page.html").read_text()
    assert re.findall(r'data-cover="([\d-]+)"', html) == ["0-0", "1-1", "0-1", "1-0"]
    other = make_run(tmp_path / "other", originals, snapshots, names=("c.png", "d.png"))
    html = write_comparison([runs[0], other], tmp_path / "page2.html").read_text()
    assert "The runs have no image in common" in html
    assert re.findall(r'data-cover="([\d-]+)"', html) == ["0-0", "1-0", "0-1", "1-1"]


def test_seeds_of_one_configuration_differ_in_nothing(tmp_path, originals, snapshots):
    runs = [make_run(tmp_path / name, originals, snapshots) for name in ("a", "b")]
    html = write_comparison(runs, tmp_path / "page.html").read_text()
    assert "Nothing: these runs are of one configuration." in html


def test_runs_that_have_hardly_begun(tmp_path):
    runs = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"config": {}}')
        runs.append(tmp_path / name)
    html = write_comparison(runs, tmp_path / "page.html").read_text()
    for line in ("No evaluation yet", "No step has been logged yet", "Nothing has been measured", "No snapshots of these runs"):
        assert line in html
    assert data_of(html) is None


def test_text_from_files_cannot_become_markup(runs, tmp_path, originals):
    evil = "</script><script>alert(1)</script>"
    record = json.loads((runs[1] / "config.json").read_text())
    record["command"] = record["config"]["masking"]["strategy"] = record["config"]["recipe"] = evil
    (runs[1] / "config.json").write_text(json.dumps(record))
    html = write_comparison(runs, tmp_path / "page.html").read_text()
    assert "<script>alert" not in html and html.count("<script") == 2
    assert evil not in write_report(runs[1]).read_text()


def test_short_names_say_where_runs_differ(tmp_path):
    assert names_of([tmp_path / "x/runs/a", tmp_path / "x/runs/b"]) == ["a", "b"]
    assert names_of([tmp_path / "x/a", tmp_path / "y/a"]) == ["x/a", "y/a"]


def test_mistakes(runs, tmp_path):
    with pytest.raises(ValueError, match="2 to 8 runs are compared"):
        write_comparison(runs[:1], tmp_path / "page.html")
    with pytest.raises(ValueError, match="a run is named twice"):
        write_comparison([runs[0], runs[0]], tmp_path / "page.html")
    with pytest.raises(ValueError, match="nothing is no run folder"):
        write_comparison([runs[0], tmp_path / "nothing"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(ValueError, match="choose another --out"):
        write_comparison(runs, tmp_path / "page.html")
    with pytest.raises(ValueError, match=r"page.html cannot be made \(File exists\): choose another --out"):
        write_comparison(runs, tmp_path / "page.html/page.html")
