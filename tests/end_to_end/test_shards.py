"""A run and its evaluation do not change with how the images are stored."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from evomask.benchmarks.layouts import Sample, write_folder, write_parquet, write_tar
from evomask.cli import main
from evomask.data.scenes import Scenes
from evomask.engine.metrics import read_metrics

LAYOUTS = ("folder", "tar", "parquet")


def jpegs(split: str) -> list[Sample]:
    """In the order of their labels, as a folder has them."""
    scenes = Scenes(40, 32, split=split)
    samples = []
    for index in range(len(scenes)):
        file = io.BytesIO()
        Image.fromarray(scenes.image(index).permute(1, 2, 0).numpy()).save(file, "JPEG")
        samples.append((file.getvalue(), scenes.label(index)))
    return sorted(samples, key=lambda sample: sample[1])


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("pyarrow")
    root = tmp_path_factory.mktemp("stored")
    for split in ("train", "val"):
        samples = jpegs(split)
        for layout in LAYOUTS:
            (root / layout).mkdir(exist_ok=True)
        write_folder(samples, root / "folder" / split)
        write_tar(samples, root / "tar" / split, a_shard=10)
        write_parquet(samples, root / "parquet" / split, row_group=4, a_shard=10)
    return root


def test_a_run_is_the_same_on_every_layout(tmp_path: Path, stored: Path, tiny_flags: list[str]) -> None:
    losses = {}
    for layout in LAYOUTS:
        run = tmp_path / layout
        options = [*tiny_flags, "--data.root", str(stored / layout / "train"), "--train.epochs", "2", "--data.workers", "1"]
        assert main(["pretrain", "demo", "--out", str(run), *options]) == 0
        losses[layout] = [row["loss"] for row in read_metrics(run) if "loss" in row]
        assert (run / "report.html").exists()
    assert len(losses["folder"]) == 8
    assert losses["tar"] == losses["parquet"] == losses["folder"]


def test_an_encoder_is_judged_the_same_on_every_layout(
    tmp_path: Path, stored: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {}
    for layout in LAYOUTS:
        options = [
            "--train",
            str(stored / layout / "train"),
            "--val",
            str(stored / layout / "val"),
            "--k",
            "3",
            "--workers",
            "1",
        ]
        out = tmp_path / layout
        assert main(["evaluate", "knn", "--encoder", str(finished_run), "--out", str(out), "--device", "cpu", *options]) == 0
        results[layout] = json.loads((out / "result.json").read_text())["metrics"]
    assert 0 < results["folder"]["top1"] <= 100
    assert results["tar"] == results["parquet"] == results["folder"]
    capsys.readouterr()


def test_a_broken_member_is_named(tmp_path: Path, stored: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = jpegs("train")
    samples[7] = (samples[7][0][:300], samples[7][1])
    write_tar(samples, tmp_path / "train")
    options = ["--train", str(tmp_path / "train"), "--val", str(stored / "tar" / "val"), "--workers", "1", "--device", "cpu"]
    assert main(["evaluate", "knn", "--encoder", str(finished_run), "--out", str(tmp_path / "out"), *options]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path}/train/000000.tar:00000007 cannot be read: " in error.splitlines()[-1]
