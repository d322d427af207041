"""An evaluation that trains the encoder leaves it for others: for the next evaluation, and for timm."""

from pathlib import Path

import pytest
import timm
import torch

from evomask.cli import main
from evomask.engine.checkpoint import load_checkpoint
from evomask.models.encoders import load_encoder

ONE_STEP = [
    *("--loop.epochs", "1", "--loop.batch-size", "2", "--loop.device", "cpu"),
    *("--optim.warmup-epochs", "0", "--workers", "0"),
]
SEGMENTATION = ["evaluate", "segmentation_small", "--encoder", "untrained:demo", "--scenes", "2", *ONE_STEP]


def weights_of(folder: Path, prefix: str) -> dict[str, torch.Tensor]:
    model = load_checkpoint(folder)["model"]
    return {name.removeprefix(prefix): tensor for name, tensor in model.items() if name.startswith(prefix)}


def test_a_tuned_encoder_is_evaluated_by_the_name_of_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEGMENTATION, "--out", str(tmp_path / "segmented")]) == 0
    tuned = load_encoder(str(tmp_path / "segmented"))
    expected = weights_of(tmp_path / "segmented", "pyramid.encoder.")
    assert expected.keys() == tuned.model.state_dict().keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tuned.model.state_dict().items())

    options = ["--encoder", str(tmp_path / "segmented"), "--scenes", "40", "--workers", "0", "--k", "1"]
    assert main(["evaluate", "knn", *options, "--out", str(tmp_path / "knn")]) == 0
    assert "top1" in capsys.readouterr().out


def test_a_frozen_encoder_is_not_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEGMENTATION, "--frozen", "True", "--out", str(tmp_path / "frozen")]) == 0
    assert not (tmp_path / "frozen" / "export").exists()
    assert main(["evaluate", "knn", "--encoder", str(tmp_path / "frozen")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith(
        f"evomask: {tmp_path / 'frozen'} holds no encoder that was tuned: it is not finished, or has left"
    )
    assert said[-1].endswith("which is untrained:demo")


def test_a_running_mean_of_weights_is_what_is_left_where_it_is_judged(tmp_path: Path) -> None:
    finetune = ["evaluate", "finetune", "--encoder", "untrained:demo", "--scenes", "100", *ONE_STEP, "--loop.batch-size", "50"]
    assert main([*finetune, "--ema", "0.5", "--out", str(tmp_path / "finetuned")]) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'finetuned' / 'export' / 'timm'}", pretrained=True)
    average = weights_of(tmp_path / "finetuned", "average.module.")
    assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())
    trained = weights_of(tmp_path / "finetuned", "model.")
    assert not torch.equal(trained["head.weight"], average["head.weight"])
    assert model.num_classes == 10
