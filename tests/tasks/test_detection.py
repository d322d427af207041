"""Detection from end to end: it learns, resumes bit for bit, leaves a frozen encoder alone, and names what cannot be used."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from evomask.cli import main
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import TrainConfig
from evomask.engine.metrics import read_metrics
from evomask.engine.optim import OptimConfig
from evomask.engine.signals import Stopped
from evomask.models.detector import DetectorConfig
from evomask.models.encoders import Encoder
from evomask.models.swin import SwinConfig
from evomask.models.vit import ViTConfig, build_vit
from evomask.tasks.detection import DetectionConfig, detection
from evomask.tasks.detections import Detections

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def vit() -> Encoder:
    torch.manual_seed(0)
    config = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=32, depth=4, heads=2)
    return Encoder.of(build_vit(config), MEAN, STD, "tiny")


def swin() -> Encoder:
    torch.manual_seed(0)
    shape = {"width": 12, "depths": (1, 1, 1, 1), "heads": (1, 2, 2, 2), "window": 2}
    config = SwinConfig(name="swin_tiny_patch4_window7_224", image_size=(32, 32), **shape)
    return Encoder.of(config.build(), MEAN, STD, "tiny")


def config_of(**options: Any) -> DetectionConfig:
    plain: dict[str, Any] = {"scenes": 8, "image_size": 32, "workers": 0, "drop_path": 0.1, "validate_every": 1}
    plain["detector"] = DetectorConfig(channels=16, anchor_scale=4, proposals=20, rpn_samples=16, roi_samples=8)
    plain["optim"] = OptimConfig(base_lr=0.128, warmup_epochs=1, betas=(0.9, 0.999), decay="steps", clip_grad=1.0)
    plain["loop"] = TrainConfig(epochs=2, batch_size=4, device="cpu", log_every=1)
    return DetectionConfig(**(plain | options))


def run(encoder: Encoder, config: DetectionConfig, out: Path, resume: bool = False) -> dict[str, float]:
    out.mkdir(exist_ok=True)
    return detection(encoder, config, out, resume)


def test_it_learns_scenes_by_heart(tmp_path: Path) -> None:
    loop = TrainConfig(epochs=50, batch_size=4, device="cpu", log_every=1)
    plain = {"scale": (1.0, 1.0), "flip": False, "drop_path": 0.0, "scenes": 4, "validate_every": 50, "judge_training": True}
    metrics = run(vit(), config_of(loop=loop, **plain), tmp_path / "out")
    assert metrics["train_box_AP50"] > 50
    assert metrics["train_mask_AP50"] > 30
    assert "box_AP" in metrics
    rows = read_metrics(tmp_path / "out")
    assert rows[-1]["loss"] < 0.6 * rows[0]["loss"]
    names = ("classifier", "box_reg", "mask", "objectness", "rpn_box_reg")
    assert sum(rows[-1][f"loss_{name}"] for name in names) == pytest.approx(rows[-1]["loss"], rel=1e-4)


def test_stopped_anywhere_it_goes_on_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of()
    config = replace(config, loop=replace(config.loop, save_minutes=0))
    expected = run(vit(), config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        from evomask.engine import progress

        steps = iter(range(3))

        def stop_after_three(*_: Any) -> None:
            if next(steps, None) is None:
                raise KeyboardInterrupt

        patch.setattr(progress.ProgressBar, "update", stop_after_three)
        with pytest.raises((KeyboardInterrupt, Stopped)):
            run(vit(), config, tmp_path / "parts")
    torch.rand(5)
    assert run(vit(), config, tmp_path / "parts", resume=True) == expected
    whole, parts = (load_checkpoint(tmp_path / name)["model"] for name in ("whole", "parts"))
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)
    files = ("validation.jsonl", "detections.json", "classes.json")
    assert all((tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text() for name in files)


@pytest.mark.parametrize("encoder", [vit, swin])
def test_a_frozen_encoder_stays_as_it_is(encoder: Any, tmp_path: Path) -> None:
    frozen, moving = encoder(), encoder()
    loop = TrainConfig(epochs=1, batch_size=4, device="cpu", log_every=1)
    before = {name: value.clone() for name, value in frozen.model.named_parameters()}
    run(frozen, config_of(frozen=True, loop=loop, validate_every=9), tmp_path / "frozen")
    after = dict(frozen.model.named_parameters())
    assert all(torch.equal(after[name], before[name]) for name in after)
    run(moving, config_of(loop=loop, validate_every=9), tmp_path / "moving")
    assert any(not torch.equal(value, before[name]) for name, value in moving.model.named_parameters())


def test_windows_and_activation_checkpoints_run(tmp_path: Path) -> None:
    loop = TrainConfig(epochs=1, batch_size=4, device="cpu", checkpoint_activations=True, precision="bfloat16")
    metrics = run(vit(), config_of(window=2, loop=loop), tmp_path / "out")
    assert set(metrics) >= {"box_AP", "mask_AP", "box_AP50", "mask_AP75", "box_AR"}


def test_each_class_has_its_own_figure(tmp_path: Path) -> None:
    from evomask.data.instances import ScenesWithObjects, to_xywh
    from evomask.data.rle import encode_masks

    source = ScenesWithObjects((48, 48), 3)
    found = []
    for index in range(3):  # the truth itself
        truth = source.instances(index)
        rows = zip(truth.labels.tolist(), to_xywh(truth.boxes).tolist(), encode_masks(truth.masks), strict=True)
        found += [{"image_id": index + 1, "category_id": c, "score": 0.9, "bbox": b, "segmentation": s} for c, b, s in rows]
    detections = Detections(source, found)
    assert detections.metrics()["box_AP"] == detections.metrics()["mask_AP"] == 100
    detections.save(tmp_path, source.classes)
    assert json.loads((tmp_path / "detections.json").read_text()) == found
    rows = json.loads((tmp_path / "classes.json").read_text())
    there = {source.classes[each["category_id"] - 1] for each in found}
    assert {name for name, row in rows.items() if row["box_AP"] == row["mask_AP"] == 100} == there
    assert all(row == {"box_AP": None, "mask_AP": None} for name, row in rows.items() if name not in there)


# From the command line

TINY = ["--image-size", "32", "--workers", "0", "--loop.epochs", "1", "--loop.batch-size", "2", "--loop.device", "cpu"]
HEADS = ["--detector.channels", "8", "--detector.proposals", "10", "--detector.roi-samples", "8"]


@pytest.fixture
def coco(tmp_path: Path) -> dict[str, Any]:
    """Four images of 32 x 24 px with a red square, in COCO's layout, for both splits."""
    (tmp_path / "images").mkdir()
    annotations = []
    for number in range(4):
        image = Image.new("RGB", (32, 24))
        image.paste((230, 20, 20), (4 + number, 4, 16 + number, 16))
        image.save(tmp_path / f"images/{number}.png")
        corners = [4 + number, 4, 16 + number, 4, 16 + number, 16, 4 + number, 16]
        box = {"bbox": [4 + number, 4, 12, 12], "segmentation": [corners], "area": 144, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, "category_id": 40} | box)
    images = [{"id": number, "file_name": f"{number}.png", "width": 32, "height": 24} for number in range(4)]
    said = {"images": images, "annotations": annotations, "categories": [{"id": 40, "name": "square"}]}
    (tmp_path / "truth.json").write_text(json.dumps(said))
    return said


def arguments(folder: Path, *more: str, task: str = "detection", val: str = "truth.json") -> list[str]:
    files = ["--train", str(folder / "truth.json"), "--train-images", str(folder / "images")]
    files += ["--val", str(folder / val), "--val-images", str(folder / "images")]
    return ["evaluate", task, "--encoder", "untrained:demo", *files, *TINY, *HEADS, *more, "--out", str(folder / "out")]


def test_from_the_command_line(coco: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tmp_path, "--detector.min-score", "0")) == 0
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["task"] == "detection"
    assert {"box_AP", "mask_AP", "box_AP50"} <= set(result["metrics"])
    found = json.loads((tmp_path / "out/detections.json").read_text())
    assert found
    assert {each["category_id"] for each in found} == {40}
    with Image.open(tmp_path / "out/detections.png") as picture:
        assert min(picture.size) > 100
    assert main(["resume", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out/result.json").read_text())["metrics"] == result["metrics"]


def test_what_cannot_be_used_is_one_line(
    coco: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*more: str, **files: str) -> str:
        assert main(arguments(tmp_path, *more, **files)) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert message.startswith("evomask: ")
        assert not (tmp_path / "out").exists()
        return message

    assert "did you mean --detector.channels" in error("--detector.chanels", "9")
    assert "multiple of 16 px" in error("--image-size", "40")
    assert "--scale is a range" in error("--scale", "2", "1")
    assert "--image-size must be at least 1, not 0" in error("--image-size", "0")
    assert "only 4 images for a batch of 5" in error("--loop.batch-size", "5")
    assert "there is no file" in error(val="other.json")
    (tmp_path / "other.json").write_text(json.dumps(coco | {"categories": [{"id": 40, "name": "circle"}]}))
    assert "differ in their categories: circle, square" in error(val="other.json")
    alone = ["evaluate", "detection", "--encoder", "untrained:demo", "--train", str(tmp_path / "truth.json"), *TINY]
    assert main(alone) == 2
    assert "give all of --train, --train-images, --val and --val-images" in capsys.readouterr().err
    coco["images"][0]["width"] = 31
    (tmp_path / "other.json").write_text(json.dumps(coco))
    assert main(arguments(tmp_path, val="other.json")) == 2
    said = "0.png cannot be used: it is of 32 x 24 px, and its annotations are for 31 x 24 px"
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists(), "it is said before anything is learnt"
    for name in ("faster_coco_eval", "pycocotools"):
        monkeypatch.setitem(sys.modules, name, None)
        assert "pip install 'evomask[detection]'" in error()
        monkeypatch.undo()
