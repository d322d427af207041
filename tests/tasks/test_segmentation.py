"""Segmentation from end to end: it learns, a frozen encoder stays, it resumes bit for bit, and names what cannot be used."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax
from torch import nn

from evomask.cli import main
from evomask.data.image_masks import IGNORED
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.engine.signals import Stopped
from evomask.models.encoders import Encoder
from evomask.models.segmenter import Segmenter
from evomask.models.vit import ViTConfig, build_vit
from evomask.tasks.segmentation import SegmentationConfig, SegmentationStep, segmentation

COLOURS = {"sky": (20, 20, 230), "grass": (20, 230, 20), "road": (90, 90, 90)}
VOID = 9


def encoder() -> Encoder:
    torch.manual_seed(0)
    config = ViTConfig(name="vit_tiny_patch16_224", image_size=(16, 16), patch_size=4, width=16, depth=2, heads=2)
    return Encoder.of(build_vit(config), (0.5,) * 3, (0.25,) * 3, "tiny")


def write_pairs(root: Path, count: int) -> None:
    """Sky above grass or road, with an edge of void between."""
    generator = np.random.default_rng(count)
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        labels = np.zeros((20, 26), np.uint8)
        horizon = int(generator.integers(6, 14))
        labels[horizon:] = 1 + number % 2
        pixels = np.array(list(COLOURS.values()))[labels] + generator.integers(-15, 15, (20, 26, 3))
        labels[horizon] = VOID
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "masks" / f"{number}.png")


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    for split, count in (("train", 8), ("val", 3)):
        write_pairs(tmp_path / split, count)
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    (tmp_path / "out").mkdir()
    return {
        "train": tmp_path / "train/images",
        "train_masks": tmp_path / "train/masks",
        "val": tmp_path / "val/images",
        "val_masks": tmp_path / "val/masks",
        "classes": tmp_path / "classes.txt",
        "ignored": (VOID,),
    }


def config_of(folders: dict[str, Any], **options: Any) -> SegmentationConfig:
    small: dict[str, Any] = {"crop": (16, 16), "sides": (16, 32), "scale": (1.0, 1.0), "stride": (11, 11)}
    small |= {"head_channels": 8, "auxiliary_channels": 4, "workers": 0, "iterations_per_epoch": 6, "distortion": False}
    optim = OptimConfig(base_lr=0.2, warmup_epochs=0.5, decay="linear")
    loop = TrainConfig(epochs=2, batch_size=4, device="cpu", log_every=1)
    return SegmentationConfig(**(folders | small | {"optim": optim, "loop": loop} | options))


class Fixed(nn.Module):
    """A segmenter that says the same of any images."""

    def __init__(self, main: torch.Tensor, auxiliary: torch.Tensor):
        super().__init__()
        self.main, self.auxiliary = nn.Parameter(main), nn.Parameter(auxiliary)

    def with_auxiliary(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.main, self.auxiliary


def test_the_loss_is_the_cross_entropy_of_both_heads_over_all_pixels() -> None:
    generator = np.random.default_rng(0)
    heads = generator.standard_normal((2, 2, 3, 4, 5))  # head, image, class, row, column
    labels = generator.integers(0, 3, (2, 4, 5))
    unlabelled = generator.random(labels.shape) < 0.3
    logs = log_softmax(heads, axis=2)
    each = [-np.take_along_axis(head, labels[:, None], axis=1)[:, 0] for head in logs]
    main, auxiliary = (np.where(unlabelled, 0, loss).mean() for loss in each)
    step = SegmentationStep(cast(Segmenter, Fixed(*map(torch.from_numpy, heads))), encoder(), 0.4)
    images = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    result = step((images, torch.from_numpy(np.where(unlabelled, IGNORED, labels)), torch.arange(2)), 0.0)
    assert unlabelled.any()
    assert result.loss.item() == pytest.approx(main + 0.4 * auxiliary, rel=1e-6)
    assert result.metrics() == {"main_loss": pytest.approx(main, rel=1e-6)}


@pytest.mark.parametrize("frozen", [False, True])
def test_it_learns_and_a_frozen_encoder_stays(folders: dict[str, Any], tmp_path: Path, frozen: bool) -> None:
    seen = encoder()
    before = {name: value.clone() for name, value in seen.model.state_dict().items()}
    metrics = segmentation(seen, config_of(folders, frozen=frozen), tmp_path / "out")
    assert metrics["aAcc"] > 75
    assert metrics.keys() == {
        "mIoU",
        "aAcc",
        "mAcc",
        *(f"{what} of {name}" for what in ("IoU", "accuracy") for name in COLOURS),
    }
    rows = [json.loads(line) for line in (tmp_path / "out/validation.jsonl").read_text().splitlines()]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 6), (2, 12)]  # 6 steps are 3 passes over 8 images
    kept = [name for name, value in seen.model.state_dict().items() if value.equal(before.get(name, torch.empty(0)))]
    assert ("blocks.0.attn.qkv.weight" in kept) == frozen


def test_stopped_anywhere_it_goes_on_bit_for_bit(
    folders: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(folders, drop_path=0.2, distortion=True, scale=(0.5, 2.0))
    config = replace(config, loop=replace(config.loop, save_minutes=0))
    whole, parts = tmp_path / "out", tmp_path / "parts"
    parts.mkdir()
    expected = segmentation(encoder(), config, whole)
    with monkeypatch.context() as patch:
        steps = iter(range(7))
        from evomask.engine import progress

        def stop_after_seven(*_: Any) -> None:
            if next(steps, None) is None:
                raise KeyboardInterrupt

        patch.setattr(progress.ProgressBar, "update", stop_after_seven)
        with pytest.raises((KeyboardInterrupt, Stopped)):
            segmentation(encoder(), config, parts)
    torch.rand(5)
    assert segmentation(encoder(), config, parts, resume=True) == expected
    torch.testing.assert_close(load_checkpoint(parts)["model"], load_checkpoint(whole)["model"], rtol=0, atol=0)


COMMON = ["evaluate", "segmentation_small", "--encoder", "untrained:demo", "--workers", "0", "--loop.epochs", "1"]


def test_from_the_command_line_on_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    small = ["--crop", "32", "32", "--sides", "32", "64", "--stride", "32", "32", "--scenes", "8", "--loop.batch-size", "4"]
    assert main([*COMMON, *small, "--loop.precision", "bfloat16", "--out", str(out)]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["task"] == "segmentation"
    assert 0 < result["metrics"]["aAcc"] <= 100
    assert {"classes.csv", "segmentation.png", "validation.jsonl"} <= {path.name for path in out.iterdir()}
    assert (out / "classes.csv").read_text().startswith("class,IoU,accuracy,share of pixels\nbackground,")
    assert main(["resume", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["metrics"] == result["metrics"]


def test_what_cannot_be_used_is_one_line(folders: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(tmp_path / "out")
    flags = [part for name, value in folders.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    flags[flags.index("--ignored") + 1] = str(VOID)

    def error(*more: str, given: list[str] = flags) -> str:
        small = ["--crop", "16", "16", "--sides", "16", "32", "--stride", "16", "16", "--loop.batch-size", "4"]
        assert main([*COMMON, *given, *small, *more, "--out", str(tmp_path / "out")]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("evomask: ")
        assert not (tmp_path / "out").exists()
        return message

    assert "takes at least 2 images at a time: raise --loop.batch-size" in error("--loop.batch-size", "1")
    assert "takes at least 2 images at a time" in error("--loop.micro-batches", "4")
    assert "leaves pixels out between windows" in error("--stride", "17", "16")
    assert "leave --loop.parallel at ddp" in error("--loop.parallel", "fsdp")
    assert "--val-masks and --classes are missing" in error(given=flags[:6])
    assert "--ade20k names all there is: leave out --train" in error("--ade20k", str(tmp_path))
    assert "there are only 8 images for a batch of 16" in error("--loop.batch-size", "16")
    assert "masks/0.png has the value 9: the 3 classes are the values 0 to 2, and ignored are 255" in error("--ignored", "255")
    (tmp_path / "classes.txt").write_text("all\n")
    assert "must name at least 2 classes" in error()
    (tmp_path / "classes.txt").write_text("\n".join(COLOURS))
    Image.new("L", (20, 26)).save(tmp_path / "val/masks/0.png")
    assert "is of 20 x 26 px, and its image of 26 x 20 px" in error()
    (tmp_path / "train/masks/3.png").unlink()
    assert "1 of 8 images in" in error() and "have no mask: there is no" in error()
