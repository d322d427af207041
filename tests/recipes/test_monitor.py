"""What is measured during training: the right numbers at the right moments, and a training that does not notice."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.analysis.rankme import rankme
from evomask.data.labelled import LabelledImages
from evomask.data.scenes import Scenes
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import TrainConfig
from evomask.engine.metrics import MONITOR, read_metrics
from evomask.engine.optim import OptimConfig
from evomask.engine.pretrain import DataConfig, MonitorConfig, PretrainConfig
from evomask.models.encoders import load_encoder
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig
from evomask.recipes.launch import pretrain, resume
from evomask.tasks.features import extract_features
from evomask.tasks.knn import leave_one_out_accuracy

CONFIG = PretrainConfig(
    recipe="tiny",
    host=MAEConfig(
        encoder=ViTConfig(image_size=(32, 32), patch_size=8, width=32, depth=2, heads=2),
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=2,
    ),
    data=DataConfig(scenes=32, workers=0),
    optim=OptimConfig(base_lr=0.02, warmup_epochs=0.5),
    train=TrainConfig(epochs=5, batch_size=16, device="cpu", log_every=1),
    monitor=MonitorConfig(every=2, images=40),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(CONFIG, out=tmp_path_factory.mktemp("monitored") / "run")


def folder_of_images(root: Path, classes: tuple[str, ...]) -> Path:
    pixels = np.random.default_rng(0)
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(8):
            Image.fromarray(pixels.integers(0, 255, (32, 32, 3), np.uint8)).save(root / name / f"{number}.png")
    return root


def test_looks_are_taken_every_so_many_epochs_and_at_the_end(run: Path) -> None:
    rows = read_metrics(run, MONITOR)
    assert [(row["epoch"], row["step"]) for row in rows] == [(0, 0), (2, 4), (4, 8), (5, 10)]
    for row in rows:
        assert 0 <= row["knn"] <= 100
        assert 1 <= row["rankme"] <= 32
        assert 0 < row["attention_distance"] < 4.3
        assert row["monitor_seconds"] > 0


def test_the_last_look_is_that_of_the_exported_encoder(run: Path) -> None:
    encoder = load_encoder(str(run))
    source = Scenes((32, 32), 40, seed=0, split="val")
    features, labels = extract_features(encoder, source, "", device=torch.device("cpu"), workers=0)
    last = read_metrics(run, MONITOR)[-1]
    assert last["rankme"] == pytest.approx(rankme(features), rel=1e-4)
    assert last["knn"] == pytest.approx(leave_one_out_accuracy(features, labels))


def test_training_does_not_notice(run: Path, tmp_path: Path) -> None:
    unobserved = pretrain(replace(CONFIG, monitor=MonitorConfig(every=0)), out=tmp_path / "run")
    torch.testing.assert_close(load_checkpoint(unobserved), load_checkpoint(run), rtol=0, atol=0)
    assert not (unobserved / MONITOR).exists()


def test_a_resumed_run_has_no_look_twice(run: Path) -> None:
    before = read_metrics(run, MONITOR)
    resume(run)
    after = read_metrics(run, MONITOR)
    for row in (*before, *after):
        del row["monitor_seconds"]
    assert after == before


def test_a_held_out_folder_is_classified(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    held_out = folder_of_images(tmp_path / "held_out", ("cat", "dog"))
    config = replace(CONFIG, train=replace(CONFIG.train, epochs=1), monitor=MonitorConfig(every=1, root=held_out))
    with caplog.at_level(logging.INFO, logger="evomask"):
        run = pretrain(config, out=tmp_path / "run")
    encoder, images = load_encoder(str(run)), LabelledImages(data_of(held_out), (32, 32))
    assert len(images) == 16
    features, labels = extract_features(encoder, data_of(held_out), "", device=torch.device("cpu"), workers=0)
    assert read_metrics(run, MONITOR)[-1]["knn"] == pytest.approx(leave_one_out_accuracy(features, labels))
    assert "after epoch 1: knn" in caplog.text
    assert json.loads((run / "config.json").read_text())["config"]["monitor"]["root"] == str(held_out)


def data_of(root: Path):
    return DataConfig(root=root).source((32, 32), 3, 0)


def test_without_labels_that_were_asked_for_none_are_looked_at(tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path / "train", ("cat", "dog"))
    data = replace(CONFIG.data, root=folder)
    run = pretrain(replace(CONFIG, data=data, train=replace(CONFIG.train, epochs=1)), out=tmp_path / "run")
    rows = read_metrics(run, MONITOR)
    assert len(rows) == 2 and all("knn" not in row and row["rankme"] >= 1 for row in rows)


def test_a_folder_that_cannot_be_used_is_said_before_anything_is_made(tmp_path: Path) -> None:
    flat = folder_of_images(tmp_path / "flat", ("only",)) / "only"
    for root, message in ((flat, "have no labels: put those of each class"), (tmp_path / "gone", "there is no folder")):
        with pytest.raises(ValueError, match=message):
            pretrain(replace(CONFIG, monitor=MonitorConfig(root=root)), out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("wrong", "message"), [({"every": -1}, "every must be"), ({"images": 1}, "images must be")])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MonitorConfig(**wrong)
