"""The trees of an encoder against labels: the same as step by step, and mistakes in one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

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


def test_files_give_what_the_same_images_and_labels_give(encoder: Encoder, tmp_path: Path) -> None:
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for index in range(5):
        scene = Scenes((48, 64), 5, split="val").scene(index)
        Image.fromarray(scene.image.permute(1, 2, 0).numpy()).save(tmp_path / f"images/{index}.png")
        Image.fromarray(scene.object_map.byte().numpy()).save(tmp_path / f"masks/{index}.png")
    expected = evaluate_hierarchy(encoder, HierarchyConfig(count=5, blocks=1, device="cpu"))
    config = HierarchyConfig(images=tmp_path / "images", masks=tmp_path / "masks", count=5, blocks=1, device="cpu")
    assert evaluate_hierarchy(encoder, config) == pytest.approx(expected)
    assert evaluate_hierarchy(encoder, replace(config, ignored=(0,)))["purity"] != pytest.approx(expected["purity"])
    for path in tmp_path.glob("*/*.png"):
        picture = Image.open(path)
        picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.NEAREST).save(path)
    larger = evaluate_hierarchy(encoder, config)
    for name in ("position_purity", "chance_purity"):  # which labels alone decide, and none is mixed from two
        assert larger[name] == pytest.approx(expected[name])


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
