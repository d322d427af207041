"""The trees of an encoder against labels: the same as step by step, and mistakes in one line."""

import json
from pathlib import Path

import pytest
import torch

from evomask.analysis.label_agreement import label_agreement, patch_labels
from evomask.cli import main
from evomask.data.scenes import Scenes
from evomask.engine.pretrain import normalise
from evomask.masking import build_hierarchy
from evomask.models.encoders import Encoder
from evomask.models.vit import ViTConfig, build_vit, embed_patches, mean_patch_attention
from evomask.tasks.hierarchy import HierarchyConfig, evaluate_hierarchy


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = build_vit(ViTConfig(name="vit_tiny_patch16_224", image_size=(48, 64), patch_size=8, width=32, depth=2, heads=2))
    return Encoder.of(vit, (0.5,) * 3, (0.25,) * 3, "tiny")


def test_equal_to_the_same_step_by_step(encoder: Encoder) -> None:
    found = evaluate_hierarchy(encoder, HierarchyConfig(count=5, batch_size=2, blocks=1, device="cpu"))
    scenes = [Scenes((48, 64), 5, split="val").scene(index) for index in range(5)]
    labels = patch_labels(torch.stack([scene.object_map for scene in scenes]), (6, 8))
    images = normalise(torch.stack([scene.image for scene in scenes]), encoder.mean, encoder.std)
    vit = encoder.plain_vit()
    expected = label_agreement(build_hierarchy(mean_patch_attention(vit, embed_patches(vit, images), 1)), labels)
    assert found["images"] == expected.images
    for name in ("purity", "covering", "best_rand"):
        assert found[name] == pytest.approx(getattr(expected, name), rel=1e-4)
    assert found["colour_purity"] > found["chance_purity"]


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--count", "3", "--parts", "True", "--device", "cpu", "--out", str(tmp_path / "out")]
    assert main(["evaluate", "hierarchy", "--encoder", "untrained:demo", *options]) == 0
    metrics = json.loads((tmp_path / "out/result.json").read_text())["metrics"]
    assert 0 < metrics["purity"] <= 1 and metrics["images"] == 3
    capsys.readouterr()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--affinity", "atention"], "--affinity must be one of attention, popularity, profile, mutual, either"),
        (["--images", "photos"], "give both --images and --masks"),
        (["--images", "photos", "--masks", "masks"], "there is no folder photos"),
        (["--count", "0"], "--count must be at least 1"),
        (["--blocks", "0"], "--blocks must be at least 1"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
    ],
)
def test_mistakes_are_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["evaluate", "hierarchy", "--encoder", "untrained:demo", *options, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("evomask: ") and message in line
