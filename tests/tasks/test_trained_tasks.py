"""Linear probe and fine-tuning from end to end: they learn, resume bit for bit, and name what cannot be trained on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import log_softmax
from torch import nn

from evomask.cli import main
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import TrainConfig
from evomask.engine.metrics import read_metrics
from evomask.engine.optim import OptimConfig
from evomask.engine.signals import Stopped
from evomask.models.encoders import Encoder
from evomask.models.vit import ViTConfig, build_vit
from evomask.recipes.show import draw_picture
from evomask.tasks.finetune import FinetuneConfig, FinetuneStep, finetune
from evomask.tasks.labelled_data import LabelledDataConfig, check_trainable
from evomask.tasks.linear_probe import LinearProbeConfig, linear_probe

COLOURS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20)}


def encoder(in_chans: int = 3) -> Encoder:
    torch.manual_seed(0)
    config = ViTConfig(
        name="vit_tiny_patch16_224", image_size=(16, 16), patch_size=8, width=32, depth=2, heads=2, in_chans=in_chans
    )
    return Encoder.of(build_vit(config), (0.5,) * in_chans, (0.25,) * in_chans, "tiny")


def write_images(root: Path, count: int) -> Path:
    generator = np.random.default_rng(count)
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = np.array(colour) + generator.integers(-20, 20, (18, 18, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Any]:
    return {
        "train": write_images(tmp_path / "train", 16),
        "val": write_images(tmp_path / "val", 5),
        "workers": 0,
        "validate_every": 2,
    }


def probe_config(folders: dict[str, Any], **options: Any) -> LinearProbeConfig:
    loop = TrainConfig(epochs=20, batch_size=16, device="cpu", log_every=1)
    optim = OptimConfig(base_lr=1.0, warmup_epochs=1)
    return LinearProbeConfig(**(folders | {"rates": (20.0, 2000.0), "optim": optim, "loop": loop} | options))


def finetune_config(folders: dict[str, Any], **options: Any) -> FinetuneConfig:
    loop = TrainConfig(epochs=6, batch_size=16, device="cpu", log_every=1)
    optim = OptimConfig(base_lr=0.03, warmup_epochs=1)
    plain = {"distortion": None, "mixup": 0.0, "cutmix": 0.0, "optim": optim, "loop": loop}
    return FinetuneConfig(**(folders | plain | options))


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_a_probe_learns_and_the_encoder_stays(folders: dict[str, Any], tmp_path: Path, cached: bool, pooling: Any) -> None:
    frozen = encoder()
    before = {name: value.clone() for name, value in frozen.model.state_dict().items()}
    (tmp_path / "out").mkdir()
    metrics = linear_probe(frozen, probe_config(folders, cached=cached, pooling=pooling), tmp_path / "out")
    assert metrics["top1"] > 80
    assert metrics["majority"] == pytest.approx(100 / 3, abs=1e-3)
    assert metrics["rate"] in (20.0, 2000.0)
    torch.testing.assert_close(frozen.model.state_dict(), before, rtol=0, atol=0)


def test_a_sweep_trains_each_probe_as_if_it_were_alone(folders: dict[str, Any], tmp_path: Path) -> None:
    states = {}
    for name, rates in {"both": (20.0, 2000.0), "second": (2000.0, 2000.0)}.items():
        (tmp_path / name).mkdir()
        linear_probe(encoder(), probe_config(folders, rates=rates, cached=True), tmp_path / name)
        states[name] = load_checkpoint(tmp_path / name)["model"]
    torch.testing.assert_close(states["both"]["heads.1.weight"], states["second"]["heads.1.weight"])
    assert not torch.allclose(states["both"]["heads.0.weight"], states["second"]["heads.0.weight"])


def test_a_rate_that_diverges_does_not_stop_the_others(folders: dict[str, Any], tmp_path: Path) -> None:
    loop = TrainConfig(epochs=90, batch_size=16, device="cpu", log_every=1)
    for name, rates in {"both": (20.0, 1e7), "one": (20.0,)}.items():
        (tmp_path / name).mkdir()
        linear_probe(encoder(), probe_config(folders, rates=rates, cached=True, loop=loop), tmp_path / name)
    both, one = (load_checkpoint(tmp_path / name)["model"] for name in ("both", "one"))
    assert not both["heads.1.weight"].isfinite().all()
    assert json.loads((tmp_path / "both/validation.jsonl").read_text().splitlines()[-1])["rate"] == 20.0
    assert both["heads.0.weight"].isfinite().all() and one["heads.0.weight"].isfinite().all()
    (tmp_path / "all").mkdir()
    with pytest.raises(ValueError, match="the loss was not finite"):
        linear_probe(encoder(), probe_config(folders, rates=(1e7, 2e7), cached=True, loop=loop), tmp_path / "all")


@pytest.mark.parametrize(
    "options",
    [{}, {"ema": 0.5}, {"distortion": "rand-m3", "mixup": 0.2, "cutmix": 0.2, "loop": TrainConfig(epochs=12, batch_size=16)}],
    ids=["plain", "average", "augmented"],
)
def test_fine_tuning_learns(folders: dict[str, Any], tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "out").mkdir()
    metrics = finetune(encoder(), finetune_config(folders, **options), tmp_path / "out")
    assert metrics["top1"] > 80
    assert (tmp_path / "out/predictions.safetensors").exists()


class Pixels(nn.Module):
    """A classifier whose logits are linear in the mean colour of an image; it keeps what it was shown."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(3, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images.detach().double().numpy()
        return self.head(images.mean(dim=(2, 3)))


@pytest.mark.parametrize("mixup", [0.0, 0.8])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_loss_is_that_of_smoothed_and_mixed_labels(folders: dict[str, Any], smoothing: float, mixup: float) -> None:
    model = Pixels()
    config = finetune_config(folders, label_smoothing=smoothing, random_erasing=0.0, mixup=mixup)
    images, labels = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), np.array([2, 0, 1, 1])
    step = FinetuneStep(model, encoder(), config, 3)
    loss = step((images, torch.from_numpy(labels), torch.arange(4)), 0.0).loss.item()
    plain = (images.double().numpy() / 255 - 0.5) / 0.25
    # An image is mixed with the one at the same place from the end: by how much shows in what the model has seen.
    other = plain[::-1]
    share = ((model.seen - other) * (plain - other)).sum() / ((plain - other) ** 2).sum()
    np.testing.assert_allclose(model.seen, share * plain + (1 - share) * other, atol=1e-5)
    assert (share == pytest.approx(1, abs=1e-6)) == (mixup == 0)
    logits = torch.einsum("oc,bc->bo", model.head.weight, torch.from_numpy(model.seen.mean(axis=(2, 3))).float())
    logits = (logits + model.head.bias).detach().double().numpy()
    smooth = np.eye(3)[labels] * (1 - smoothing) + smoothing / 3
    targets = share * smooth + (1 - share) * smooth[::-1]
    assert loss == pytest.approx(-(targets * log_softmax(logits, axis=1)).sum(axis=1).mean(), abs=1e-5)


def test_gradients_of_each_block_are_logged_where_asked_for(folders: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    config = finetune_config(folders, gradients=True)
    finetune(encoder(), config, tmp_path / "out")
    rows = read_metrics(tmp_path / "out")
    assert all(row["gradient_block_1"] > 0 and row["gradient_block_2"] > 0 for row in rows)
    assert len(draw_picture("gradients", [str(tmp_path / "out")], []).axes[0].lines[0].get_xdata()) == 2
    with pytest.raises(ValueError, match=r"--loop\.parallel ddp"):
        replace(config, loop=replace(config.loop, parallel="fsdp"))


def test_the_average_is_what_is_validated(folders: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    finetune(encoder(), finetune_config(folders, ema=1.0), tmp_path / "out")  # one that never moves
    state = load_checkpoint(tmp_path / "out")["model"]
    assert not torch.equal(state["model.head.weight"], state["average.module.head.weight"])
    rows = [json.loads(line) for line in (tmp_path / "out/validation.jsonl").read_text().splitlines()]
    assert len({row["loss"] for row in rows}) == 1


@pytest.mark.parametrize("task", ["finetune", "linear-probe"])
def test_stopped_anywhere_it_goes_on_bit_for_bit(
    task: str, folders: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if task == "finetune":
        run, config = finetune, finetune_config(folders, ema=0.9, mixup=0.8, cutmix=1.0, distortion="rand-m9-mstd0.5-inc1")
    else:
        run, config = linear_probe, probe_config(folders)
    config = replace(config, loop=replace(config.loop, save_minutes=0))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    expected = run(encoder(), config, whole)  # type: ignore[operator]

    with monkeypatch.context() as patch:
        steps = iter(range(7))
        from evomask.engine import progress

        def stop_after_seven(*_: Any) -> None:
            if next(steps, None) is None:
                raise KeyboardInterrupt

        patch.setattr(progress.ProgressBar, "update", stop_after_seven)
        with pytest.raises((KeyboardInterrupt, Stopped)):
            run(encoder(), config, parts)  # type: ignore[operator]
    torch.rand(5)
    assert run(encoder(), config, parts, resume=True) == expected  # type: ignore[operator]
    torch.testing.assert_close(load_checkpoint(parts)["model"], load_checkpoint(whole)["model"], rtol=0, atol=0)
    assert (parts / "validation.jsonl").read_text() == (whole / "validation.jsonl").read_text()


def test_mixing_and_erasing_are_a_function_of_the_loops_generator(folders: dict[str, Any]) -> None:
    config = finetune_config(folders, mixup=0.8, cutmix=1.0, random_erasing=1.0)
    from evomask.models.classifier import add_classifier

    whole = encoder()
    step = FinetuneStep(add_classifier(whole.model, 3), whole, config, 3)
    batch = (torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    torch.nn.init.normal_(whole.model.head.weight)  # type: ignore[union-attr]
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(step(batch, 0.0).loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_from_the_command_line_with_a_share_of_the_labels(folders: dict[str, Any], tmp_path: Path, capsys) -> None:
    data = ["--train", str(folders["train"]), "--val", str(folders["val"]), "--workers", "0", "--label-share", "0.5"]
    loop = ["--loop.epochs", "1", "--loop.batch-size", "8", "--optim.warmup-epochs", "0"]
    out = tmp_path / "probe"
    common = ["evaluate", "linear-probe", "--encoder", "untrained:demo", *data, *loop]
    assert main([*common, "--out", str(out)]) == 0
    first = json.loads((out / "result.json").read_text())
    assert first["task"] == "linear-probe"
    assert first["config"]["encoder"] == "untrained:demo"
    assert load_checkpoint(out)["step"] == 24 // 8
    assert {path.name for path in out.glob("*.png")} == {"confusion.png", "calibration.png"}
    assert main(["resume", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["metrics"] == first["metrics"]
    record = json.loads((out / "config.json").read_text())
    for change, said in (({"task": "nosuch"}, "KeyError('nosuch')"), ({"config": {"gone": 1}}, "gone")):
        (out / "config.json").write_text(json.dumps(record | change))
        capsys.readouterr()
        assert main(["resume", str(out)]) == 2
        error = capsys.readouterr().err
        assert "config.json does not describe an evaluation of this version of evomask" in error and said in error
    (out / "config.json").write_text(json.dumps(record))
    assert main([*common, "--out", str(out)]) == 2
    assert f"`evomask resume {out}` goes on with it" in capsys.readouterr().err


def test_what_cannot_be_trained_on_is_one_line(folders: dict[str, Any], tmp_path: Path, capsys) -> None:
    def error(*more: str, task: str = "finetune") -> str:
        data = ["--train", str(folders["train"]), "--val", str(folders["val"]), "--workers", "0"]
        arguments = ["evaluate", task, "--encoder", "untrained:demo", *data, *more, "--out", str(tmp_path / "out")]
        assert main(arguments) == 2
        message = capsys.readouterr().err
        assert message.count("\n") == 1
        return message

    assert "there are only 48 images for a batch of 1024: lower" in error()
    assert "make the batch (or micro-batch) size even" in error("--loop.batch-size", "9")
    assert "no RandAugment that timm knows" in error("--loop.batch-size", "8", "--distortion", "rnd")
    for option, value, said in (
        ("--shown", "0", "--shown is how much of an image's shorter side is seen, above 0"),
        ("--drop-path", "1.5", "--drop-path is how often the last block is left out"),
        ("--label-smoothing", "2", "--label-smoothing is a share, from 0 to 1, not 2"),
        ("--ema", "5", "--ema is the decay of a running mean, from 0 to 1"),
        ("--mixup", "-1", "--mixup and --cutmix must be at least 0"),
        ("--loop.seed", "-1", "must be at least 0, not -1"),
    ):
        assert said in error("--loop.batch-size", "8", option, value)
    assert "--crop-scale is a range" in error("--loop.batch-size", "8", "--crop-scale", "1", "0.2")
    assert "--shown is how much" in error("--shown", "2", task="linear-probe")
    for share in ("0", "10"):
        assert "share of labels must be above 0 and at most 1" in error("--loop.batch-size", "8", "--label-share", share)
    assert "--rates are learning rates above 0" in error("--rates", "0", task="linear-probe")
    assert "--optim.base-lr must be above 0" in error("--optim.base-lr", "0", task="linear-probe")
    assert "there are only 3 images for a batch of 8" in error("--loop.batch-size", "8", "--label-share", "0.01")
    (tmp_path / "train" / "white").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "white" / "0.png")
    assert "differ in their classes: white" in error()
    (tmp_path / "val" / "white").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val" / "white" / "0.png")
    assert "class 'white' has one image for training, and needs at least 2" in error()


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    for split in ("train", "val"):
        (tmp_path / split / "all").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / split / "all" / "0.png")
    train, _ = LabelledDataConfig(train=tmp_path / "train", val=tmp_path / "val").sources(encoder())
    with pytest.raises(ValueError, match="needs at least 2 classes"):
        check_trainable(train)


@pytest.mark.parametrize("channels", [1, 4])
def test_encoders_of_other_channels_are_probed_too(folders: dict[str, Any], tmp_path: Path, channels: int) -> None:
    (tmp_path / "out").mkdir()
    assert linear_probe(encoder(channels), probe_config(folders, cached=True), tmp_path / "out")["top1"] > 30
