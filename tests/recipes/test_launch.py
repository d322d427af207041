"""Starting and resuming a run in Python: what it leaves behind, and that it goes on bit for bit."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from evomask.analysis.snapshot import load_snapshot
from evomask.engine.checkpoint import checkpoints, load_checkpoint
from evomask.engine.loop import Moment, TrainConfig
from evomask.engine.metrics import read_metrics
from evomask.engine.optim import OptimConfig
from evomask.engine.pretrain import DataConfig, MonitorConfig, PretrainConfig, PretrainStep, build_host
from evomask.engine.run import read_run
from evomask.engine.signals import Stopped
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig
from evomask.recipes import RECIPES, hooks, launch
from evomask.recipes.evaluation import encoder_of
from evomask.recipes.hooks import export
from evomask.recipes.launch import free_folder, load_host, pretrain, resume, untrained_encoder

CONFIG = PretrainConfig(
    recipe="tiny",
    host=MAEConfig(
        encoder=ViTConfig(image_size=(32, 48), patch_size=8, width=32, depth=2, heads=2, drop_path=0.2),
        decoder_width=16,
        decoder_depth=1,
        decoder_heads=2,
    ),
    data=DataConfig(scenes=64, workers=0),
    optim=OptimConfig(base_lr=0.02, warmup_epochs=0.5, clip_grad=1.0),
    train=TrainConfig(epochs=3, batch_size=16, micro_batches=2, device="cpu", log_every=1),
    monitor=MonitorConfig(images=16),
)
STEPS = 12


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupts."""
    return pretrain(CONFIG, out=tmp_path_factory.mktemp("whole") / "run")


def timeless(run: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in read_metrics(run)]


def assert_same_end(run: Path, whole: Path) -> None:
    """Bit for bit: weights, optimiser and every row of the log."""
    torch.testing.assert_close(load_checkpoint(run), load_checkpoint(whole), rtol=0, atol=0)
    assert timeless(run) == timeless(whole)


def signal_in_step(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """SIGTERM comes while this step is computed, in the second of its two micro-batches."""
    calls = 0
    plain = PretrainStep.__call__

    def step_and_signal(self: PretrainStep, batch, progress: float):
        nonlocal calls
        calls += 1
        if calls == 2 * (step + 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch, progress)

    monkeypatch.setattr(PretrainStep, "__call__", step_and_signal)


@pytest.mark.parametrize("done", [1, 4, 6, 11, 12])
def test_a_run_that_a_signal_stopped_goes_on_bit_for_bit(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, done: int
) -> None:
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        signal_in_step(patch, done - 1)
        with pytest.raises(Stopped, match=f"after {done} steps, all saved: `evomask resume {run}`"):
            pretrain(CONFIG, out=run)
    assert load_checkpoint(run)["step"] == done
    torch.rand(5)
    assert resume(run) == run
    assert_same_end(run, whole)
    assert sorted(path.name for path in (run / "snapshots").iterdir()) == sorted(
        path.name for path in (whole / "snapshots").iterdir()
    )


def test_a_run_whose_hook_failed_goes_on_bit_for_bit(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_at_epoch_2(moment: Moment) -> None:
        if moment.epoch == 2:
            raise RuntimeError("a hook's mistake")

    plain = launch.run_hooks
    with monkeypatch.context() as patch:
        patch.setattr(launch, "run_hooks", lambda *arguments: [*plain(*arguments), fail_at_epoch_2])
        with pytest.raises(RuntimeError, match="a hook's mistake"):
            pretrain(CONFIG, out=tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")["step"] == 8
    resume(tmp_path / "run")
    assert_same_end(tmp_path / "run", whole)


def test_the_whole_run_is_the_same_again(tmp_path: Path, whole: Path) -> None:
    torch.manual_seed(123)
    assert_same_end(pretrain(CONFIG, out=tmp_path / "run"), whole)


def test_a_finished_run_holds_everything(whole: Path) -> None:
    names = {path.name for path in whole.iterdir() if path.name != ".lock"}
    assert names == {
        "config.json",
        "samples.json",
        "metrics.jsonl",
        "monitor.jsonl",
        "checkpoints",
        "tensorboard",
        "snapshots",
        "export",
        "report.html",
        "result.json",
    }
    assert read_run(whole, PretrainConfig) == CONFIG
    assert [row["step"] for row in read_metrics(whole)] == list(range(STEPS))
    assert [path.name for path in checkpoints(whole)] == ["step_00000012"]
    assert {path.name for path in (whole / "snapshots").iterdir()} == {
        *("images.safetensors", "epoch_0000.safetensors", "epoch_0001.safetensors", "epoch_0002.safetensors"),
        "epoch_0003.safetensors",
    }
    metrics = json.loads((whole / "result.json").read_text())["metrics"]
    last = [row["loss"] for row in read_metrics(whole) if row["epoch"] == CONFIG.train.epochs - 1]
    assert metrics == {"loss": pytest.approx(sum(last) / len(last)), "epochs": CONFIG.train.epochs, "steps": STEPS}
    page = (whole / "report.html").read_text()
    assert "<html" in page
    assert list(whole.rglob("*.unfinished")) == []


def test_the_export_for_timm_is_the_encoder_of_the_last_checkpoint(whole: Path) -> None:
    model = timm.create_model(f"local-dir:{whole / 'export' / 'timm'}", pretrained=True)
    saved = load_checkpoint(whole)["model"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved[f"encoder.{name}"])


def test_images_that_are_not_square_have_no_words_in_transformers_and_the_run_ends_well(whole: Path) -> None:
    # CONFIG has 32 x 48 px: said on stderr, while the other export and the report are there.
    assert {path.name for path in (whole / "export").iterdir()} == {"timm"}


def test_resuming_a_finished_run_gives_exports_and_report_again(tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, epochs=1))
    run = pretrain(config, out=tmp_path / "run")
    before = timeless(run)
    for name in ("report.html", "result.json"):
        (run / name).unlink()
    resume(run)
    assert (run / "report.html").exists() and (run / "result.json").exists()
    assert timeless(run) == before


def test_the_host_of_a_run_has_its_newest_weights(whole: Path) -> None:
    host, config = load_host(whole)
    assert config == CONFIG
    assert not host.training
    torch.testing.assert_close(host.state_dict(), load_checkpoint(whole)["model"], rtol=0, atol=0)


def test_the_untrained_encoder_has_the_weights_that_training_starts_from() -> None:
    encoder = untrained_encoder(CONFIG)
    torch.testing.assert_close(encoder.model.state_dict(), build_host(CONFIG).encoder.state_dict(), rtol=0, atol=0)
    assert (encoder.name, encoder.mean, encoder.std) == ("untrained:tiny", CONFIG.data.mean, CONFIG.data.std)
    assert not encoder.model.training


def test_the_untrained_encoder_of_a_run_is_that_of_its_own_configuration(whole: Path) -> None:
    encoder = encoder_of(f"untrained:{whole}")
    assert encoder.image_size == (32, 48)
    torch.testing.assert_close(encoder.model.state_dict(), build_host(CONFIG).encoder.state_dict(), rtol=0, atol=0)


def test_free_folders_are_counted(tmp_path: Path) -> None:
    wanted = tmp_path / "demo"
    assert free_folder(wanted) == wanted
    wanted.mkdir()
    assert free_folder(wanted) == tmp_path / "demo-2"
    (tmp_path / "demo-2").write_text("")
    assert free_folder(wanted) == tmp_path / "demo-3"


def test_without_out_a_run_takes_the_first_free_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = replace(CONFIG, data=replace(CONFIG.data, scenes=16), train=replace(CONFIG.train, epochs=1))
    assert pretrain(config) == Path("runs/tiny")
    assert pretrain(config) == Path("runs/tiny-2")
    assert read_run(Path("runs/tiny-2"), PretrainConfig) == config


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("demoo", {}, r"^no recipe 'demoo': did you mean 'demo'\?$"),
        ("demo", {"epochs": 3}, "PretrainConfig has no 'epochs': it has recipe, host, masking, data, optim, train"),
        ("demo", {"train__epoch": 3}, "TrainConfig has no 'epoch': it has epochs, batch_size"),
        ("demo", {"train__epochs__x": 3}, "'epochs' has no 'x' below it"),
        ("demo", {"train__epochs": 0}, "--train.epochs, or --loop.epochs, must be at least 1, not 0"),
        ("demo", {"data__root": "nowhere"}, "nowhere"),
        ("demo", {"host__encoder__patch_size": 7}, "patches of 7 x 7 px do not divide"),
        ("demo", {"data__scenes": 8}, "batch"),
        ("demo", {"train__precision": "bf16"}, "precision must be one of 'auto', 'float32', 'bfloat16', not 'bf16'"),
        ("demo", {"masking__depth_grows": "steps"}, "depth_grows must be one of 'epoch', 'step', not 'steps'"),
        ("demo", {"masking__strategy": "cells", "masking__cell": 3}, "cells of 3 x 3 patches do not tile a grid"),
        ("demo", {"masking__ratio": 0.001}, "hides none of"),
        ("demo", {"data__workers": -1}, "--data.workers must be at least 0"),
        ("demo", {"data__std": (0.2, 0.0, 0.2)}, "--data.std is what channels are divided by"),
        ("demo", {"train__seed": -1}, "must be at least 0, not -1"),
        ("demo", {"optim__clip_grad": -1.0}, "--optim.clip-grad must be above 0, not -1.0; None clips nothing"),
        ("demo", {"optim__warmup_epochs": -1.0}, "--optim.warmup-epochs must be at least 0"),
    ],
)
def test_mistakes_are_clear_and_leave_nothing_behind(tmp_path: Path, recipe: str, overrides: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretrain(recipe, out=tmp_path / "run", **overrides)
    assert not (tmp_path / "run").exists()


def test_overrides_reach_the_leaves(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain(
        CONFIG,
        out=str(run),
        train__epochs=1,
        data__scenes=16,
        host__encoder__width=16,
        masking__strategy="random",
        optim__clip_grad=None,
    )
    expected = replace(
        CONFIG,
        train=replace(CONFIG.train, epochs=1),
        data=replace(CONFIG.data, scenes=16),
        host=replace(CONFIG.host, encoder=replace(CONFIG.host.encoder, width=16)),
        masking=replace(CONFIG.masking, strategy="random"),
        optim=replace(CONFIG.optim, clip_grad=None),
    )
    assert read_run(run, PretrainConfig) == expected


def test_a_run_is_never_overwritten(whole: Path) -> None:
    before = (whole / "config.json").read_bytes()
    with pytest.raises(ValueError, match="choose another --out"):
        pretrain(CONFIG, out=whole)
    assert (whole / "config.json").read_bytes() == before
    assert len(read_metrics(whole)) == STEPS


def test_the_last_snapshot_is_of_the_last_masks(tmp_path: Path) -> None:
    for grows, progress in (("epoch", 2 / 3), ("step", 11 / 12)):
        run = pretrain(CONFIG, out=tmp_path / grows, masking__depth_grows=grows)
        assert read_metrics(run)[-1]["progress"] == progress
        assert load_snapshot(run / "snapshots" / "epoch_0003.safetensors").progress == progress


def test_an_unknown_library_is_refused(whole: Path, tmp_path: Path) -> None:
    host, config = load_host(whole)
    with pytest.raises(ValueError, match="--to must be one of timm, transformers, not 'onnx'"):
        export(host, config, "onnx", tmp_path / "out")


def test_stages_are_spread_over_long_runs(tmp_path: Path) -> None:
    config = replace(CONFIG, train=replace(CONFIG.train, epochs=300))
    snapshots = hooks._Snapshots(config, tmp_path, build_host(config))
    for epoch in (1, 24, 26, 299):
        snapshots(Moment(epoch, 0, epoch / 300))
    assert list(tmp_path.iterdir()) == []
    for epoch in (0, 25, 300):
        snapshots(Moment(epoch, 0, min(epoch, 299) / 300))
    kept = sorted(path.name for path in (tmp_path / "snapshots").glob("epoch_*"))
    assert kept == ["epoch_0000.safetensors", "epoch_0025.safetensors", "epoch_0300.safetensors"]


def test_recipes_are_told_apart_from_configurations(tmp_path: Path) -> None:
    overrides = {"data__scenes": 16, "train__batch_size": 16, "train__epochs": 1, "train__device": "cpu", "data__workers": 0}
    run = pretrain("demo", out=tmp_path / "run", **overrides, host__encoder__depth=1, host__decoder_depth=1)
    assert json.loads((run / "config.json").read_text())["config"]["recipe"] == "demo"
    assert read_run(run, PretrainConfig).optim == RECIPES["demo"]().optim
