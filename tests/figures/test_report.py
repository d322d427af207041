import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.analysis.snapshot import save_images, save_snapshot, take_snapshot
from evomask.figures.report import write_report
from evomask.figures.sliders import MOST_STAGES
from evomask.masking import RandomMasking
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig

SECTIONS = ["results", "training", "learning", "masks", "hierarchy", "trees", "cost", "configuration"]
EVIL = '<script>alert("x")</script>&'
NEVER_CLOSED = {"meta", "link", "img", "input", "br", "path", "use"}


class Page(HTMLParser):
    """What the tests ask of a page: its text, attributes, and the contents of the data for the sliders."""

    def __init__(self, path: Path):
        super().__init__()
        self.html = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(self.html)
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in NEVER_CLOSED:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in NEVER_CLOSED:
            assert self._open.pop() == tag

    def handle_data(self, data):
        if not self._open or self._open[-1] not in ("script", "style"):
            self.text += data

    @property
    def sections(self) -> list[str | None]:
        return [attributes["id"] for tag, attributes in self.tags if tag == "section"]

    @property
    def data(self):
        found = re.search(r'<script type="application/json" id="slider-data">(.*?)</script>', self.html, re.DOTALL)
        assert found is not None
        return json.loads(found[1])

    def pictures(self) -> list[Image.Image]:
        uris = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        return [decode(uri) for uri in uris]


def decode(uri) -> Image.Image:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content, validate=True)))


def config_of_run(**changes):
    config = {
        "recipe": "demo",
        "host": {"encoder": {"name": "vit_tiny_patch16_224", "image_size": [24, 32], "patch_size": 8}},
        "masking": {"strategy": "evolved", "ratio": 0.75},
        "data": {"root": None, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]},
        "train": {"epochs": 4, "batch_size": 50},
    }
    return {
        "command": "evomask pretrain demo --train.epochs 4",
        "config": config,
        "versions": {"torch": "2.11.0"},
        "git": "0123abc",
        "machine": "x86_64 Linux",
        "started": "2025-03-01T14:05:00",
    } | changes


@pytest.fixture
def empty_run(tmp_path) -> Path:
    run = tmp_path / "my run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(config_of_run()))
    return run


@pytest.fixture
def run(empty_run, originals, snapshots) -> Path:
    rows = [
        {
            "step": step,
            "epoch": step // 10,
            "progress": step / 40,
            "loss": 2 - step / 40,
            "lr": 1e-3,
            "depth": 1 + step / 4,
        }
        | {"tree_height": 12.0, "largest_group": step / 40, "groups": 5.0, "images_per_second": 25.0}
        for step in range(40)
    ]
    (empty_run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_images(empty_run / "snapshots" / "images.safetensors", originals, ["birds/a.png", "birds/b.png"])
    looks = [{"step": 20 * n, "epoch": 2 * n, "knn": 30.0 + n, "rankme": 9.5, "monitor_seconds": 0.8} for n in range(3)]
    (empty_run / "monitor.jsonl").write_text("".join(json.dumps(row) + "\n" for row in looks))
    for stage in snapshots:
        save_snapshot(stage, empty_run / "snapshots" / f"epoch_{stage.epoch:04d}.safetensors")
    (empty_run / "results").mkdir()
    for name, top1 in (("knn", 61.25), ("knn_untrained", 33.5)):
        result = {"task": "knn", "metrics": {"top1": top1, "top5": 90.0, "majority": 12.5}}
        (empty_run / "results" / f"{name}.json").write_text(json.dumps(result))
    return empty_run


def test_every_part_of_a_run_is_on_the_page(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path)
    assert page.sections == SECTIONS
    assert 'class="missing"' not in page.html.partition("<noscript>")[0]
    assert page.html.count('<svg role="img"') == 8
    for text in (
        "evomask pretrain demo --train.epochs 4",
        "evomask resume",
        "01 March 2025, 14:05",
        "x86_64 Linux",
        "torch 2.11.0, git 0123abc",
        "24 × 32 px · patches of 8 px · evolved masks · 75% hidden · images from the embedded scenes",
        "of 4, 40 steps",
        "61.2%",
        "33.5%",
        "masking.ratio",
    ):
        assert text in page.text


def test_training_time_is_counted_from_the_speed_of_each_row(run):
    # 40 steps of 50 images at 25 images a second
    assert "80 s" in Page(write_report(run)).text


def test_what_the_run_cost(run):
    (run / "checkpoints" / "step_40").mkdir(parents=True)
    (run / "checkpoints" / "step_40" / "weights").write_bytes(bytes(3 * 2**20))
    text = " ".join(Page(write_report(run)).text.split())
    for fact in ("80 s without pauses", "2,000 ms, mean of 40", "2,000, every pass counted", "3 took 2 s, 3.0% of", "3 MiB"):
        assert fact in text


def test_results_of_evaluate_are_found_where_it_leaves_them(run):
    folder = run / "results" / "linear-probe"
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps({"task": "linear-probe", "metrics": {"top1": 12.345}}))
    text = Page(write_report(run)).text
    assert "linear-probe" in text and "12.35" in text and "61.2%" in text


def test_an_accuracy_that_is_not_there_costs_no_report(run):
    (run / "results" / "knn.json").write_text(json.dumps({"task": "knn", "metrics": {"top1": None, "majority": None}}))
    assert "pretrained" not in Page(write_report(run)).text


def test_an_evaluation_that_trained_has_no_hidden_patches_and_a_cost(run):
    record = json.loads((run / "config.json").read_text())
    record["config"] = {"loop": {"epochs": 2, "batch_size": 50}}
    (run / "config.json").write_text(json.dumps(record))
    text = Page(write_report(run)).text
    assert "Loss, as logged" in text and "hidden patches, as logged" not in text
    assert "80 s without pauses" in text and "of 2, 40 steps" in text


def test_steps_without_a_finite_loss_are_not_no_steps(run):
    (run / "metrics.jsonl").write_text('{"step": 0, "epoch": 0, "loss": null}\n')
    assert "No step has had a finite loss." in Page(write_report(run)).text


def test_json_that_is_no_result_is_left_out_and_named(run, caplog):
    (run / "results" / "steps.json").write_text('{"rows": []}')
    (run / "results" / "cut.json").write_text('{"metrics": {"to')
    write_report(run)
    assert all(f"{name}.json is not the result of an evaluation" in caplog.text for name in ("steps", "cut"))


def test_nothing_is_loaded_from_elsewhere(run):
    page = Page(write_report(run))
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")), (tag, name, value)
    assert "@import" not in page.html and not re.search(r"url\(\s*['\"]?(?!#)", page.html)
    assert not re.search(r"\b(fetch|XMLHttpRequest|import)\s*\(", page.html)
    assert any(tag == "link" and attributes["rel"] == "icon" for tag, attributes in page.tags)


def test_ids_are_unique_and_labels_point_to_their_sliders(run):
    page = Page(write_report(run))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    sliders = {attributes["id"] for tag, attributes in page.tags if tag == "input"}
    assert sliders == {"stage", "depth"}
    assert {attributes["for"] for tag, attributes in page.tags if tag == "label"} == sliders


def test_pictures_are_the_runs_images_and_have_words_for_who_cannot_see_them(run, originals):
    page = Page(write_report(run))
    pictures = page.pictures()
    assert len(pictures) == 2 * 3 + 2  # original, masked, restored; and the hierarchy
    assert {picture.size for picture in pictures} == {(32, 24)}
    for place in (0, 1):  # lossy, and of noise at that: the mean colour is kept
        expected = originals[place].float().mean(dim=(1, 2)).numpy()
        assert np.abs(np.array(pictures[3 * place]).mean(axis=(0, 1)) - expected).max() < 3
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    assert "a.png" in page.text and "birds" not in page.text


def test_the_sliders_data_are_the_snapshots(run, snapshots):
    data = Page(write_report(run)).data
    assert data["grid"] == [3, 4]
    assert [stage["title"] for stage in data["stages"]] == ["before training", "epoch 2, step 20", "epoch 4, step 40"]
    for shown, stage in zip(data["stages"], snapshots, strict=True):
        assert [[bit == "1" for bit in row] for row in shown["masked"]] == stage.masked.tolist()
        assert (shown["depth"], shown["height"]) == (stage.depth.tolist(), stage.height.tolist())
        assert [decode(uri).size for uri in shown["restored"]] == [(32, 24)] * 2
    trees = snapshots[-1].hierarchy
    assert [tree["parent"] for tree in data["trees"]] == trees.parent.tolist()
    assert [tree["level"] for tree in data["trees"]] == trees.level.tolist()
    assert all(0 <= colour < len(data["colours"]) for tree in data["trees"] for colour in tree["colour"])


def test_what_is_not_there_is_left_out_with_a_line(empty_run):
    page = Page(write_report(empty_run))
    assert page.sections == SECTIONS
    missing = ("No evaluation yet", "No step has been logged yet", "Nothing has been measured", "No snapshots of this run yet")
    for text in missing:
        assert text in page.text
    assert page.data is None and page.pictures() == []


def test_a_run_with_static_masks_that_restores_no_pixels(run, snapshots):
    for stage in snapshots:
        changed = type(stage)(**{**vars(stage), "depth": None, "reconstruction": None})
        save_snapshot(changed, run / "snapshots" / f"epoch_{stage.epoch:04d}.safetensors")
    (run / "metrics.jsonl").write_text(json.dumps({"step": 0, "epoch": 0, "loss": 1.0, "lr": 0.1}) + "\n")
    page = Page(write_report(run))
    assert page.sections == SECTIONS
    assert "Masks through training" in page.text and "not cut from trees" in page.text
    assert len(page.pictures()) == 2 * 2 + 2
    assert all(stage["depth"] is None and stage["restored"] is None for stage in page.data["stages"])


def test_what_was_measured_during_training_is_drawn(run):
    page = Page(write_report(run))
    drawn = {attributes.get("aria-label") or "" for tag, attributes in page.tags if tag == "svg"}
    assert sum(caption.startswith(("kNN accuracy on held-out", "RankMe")) for caption in drawn) == 2
    assert not any(caption.startswith("How far away") for caption in drawn)  # these rows hold no attention distance


def test_bars_stand_at_their_accuracy_and_at_chance(run):
    html = Page(write_report(run)).html
    assert re.findall(r'class="bar (\w+)".*?width:([\d.]+)%', html) == [("pretrained", "61.25"), ("untrained", "33.50")]
    assert re.findall(r'class="chance".*?left:([\d.]+)%', html) == ["12.50"]


def test_text_from_files_cannot_become_markup(run, originals):
    config = config_of_run(command=f"evomask pretrain demo --data.root '{EVIL}'", machine=EVIL, git=EVIL)
    config["config"] |= {"recipe": EVIL, EVIL: EVIL}
    config["config"]["data"]["root"] = EVIL
    (run / "config.json").write_text(json.dumps(config))
    save_images(run / "snapshots" / "images.safetensors", originals, [f'"onload="alert(1){EVIL}', "b.png"])
    (run / "results" / f"{EVIL.replace('/', '')}.json").write_text(json.dumps({"metrics": {EVIL: 1.0}}))

    page = Page(write_report(run))
    assert EVIL in page.text
    assert "<script>alert" not in page.html
    assert not any("onload" in attributes for _, attributes in page.tags)
    assert sum(tag == "script" for tag, _ in page.tags) == 2


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=f"{folder.name} is no run folder"):
            write_report(folder)
    assert not list(tmp_path.iterdir())
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match=r"is no run folder: its config\.json is of something else"):
        write_report(tmp_path)


def test_the_same_run_gives_the_same_page(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    assert [path.name for path in run.iterdir() if "report" in path.name] == ["report.html"]


def test_a_page_of_six_images_and_many_stages_stays_small(empty_run):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 14, 14, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (112, 112), mode="bicubic").clamp(0, 1)
    originals = ((0.9 * smooth + 0.1 * torch.rand(smooth.shape, generator=generator)) * 255).to(torch.uint8)
    vit = ViTConfig(name="vit_tiny_patch16_224", image_size=(112, 112), patch_size=8, width=24, heads=2, depth=1)
    host = MAEConfig(encoder=vit, decoder_width=16, decoder_depth=1, decoder_heads=2).build()
    noise = torch.rand(6, 196, generator=generator)
    stage = take_snapshot(host, RandomMasking(), originals / 128 - 1, noise, 0.0, epoch=0, step=0)
    save_images(empty_run / "snapshots" / "images.safetensors", originals, [f"{n}.png" for n in range(6)])
    for epoch in range(MOST_STAGES + 5):
        changed = type(stage)(**{**vars(stage), "epoch": epoch, "step": 10 * epoch})
        save_snapshot(changed, empty_run / "snapshots" / f"epoch_{epoch:04d}.safetensors")

    path = write_report(empty_run)
    assert path.stat().st_size < 3_000_000
    titles = [shown["title"] for shown in Page(path).data["stages"]]
    assert len(titles) == MOST_STAGES
    assert (titles[0], titles[-1]) == ("before training", f"epoch {MOST_STAGES + 4}, step {10 * (MOST_STAGES + 4)}")
