"""An evaluation that trains the encoder leaves it for others: for the next evaluation, and for timm."""

import json
from pathlib import Path

import pytest
import timm
import torch

from evomask.cli import main
from evomask.data.scene_drawing import PLACE_NAMES
from evomask.engine.checkpoint import load_checkpoint
from evomask.models.encoders import load_encoder
from evomask.recipes.evaluation import encoder_of

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
        f"evomask: {tmp_path / 'frozen'} holds no encoder that was tuned: it is not finished, it has left"
    )
    assert "which is untrained:demo, or timm" in said[-1]


def test_a_running_mean_of_weights_is_what_is_left_where_it_is_judged(tmp_path: Path) -> None:
    finetune = ["evaluate", "finetune", "--encoder", "untrained:demo", "--scenes", "100", *ONE_STEP, "--loop.batch-size", "50"]
    assert main([*finetune, "--ema", "0.5", "--out", str(tmp_path / "finetuned")]) == 0
    model = timm.create_model(f"local-dir:{tmp_path / 'finetuned' / 'export' / 'timm'}", pretrained=True)
    average = weights_of(tmp_path / "finetuned", "average.module.")
    assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())
    trained = weights_of(tmp_path / "finetuned", "model.")
    assert not torch.equal(trained["head.weight"], average["head.weight"])
    assert model.num_classes == 10


LANGUAGE = [
    *("--scenes", "4", "--balanced", "False", "--cached", "False", "--tune-encoder", "True", "--shuffled", "False"),
    *("--val-limit", "2", "--new-tokens", "2", *ONE_STEP),
]
RETRIEVAL = ["retrieval_small", "--instances", "2", "--views", "4", "--workers", "0", *ONE_STEP[:6]]


@pytest.mark.parametrize(
    "task",
    [
        ["detection_small", "--scenes", "2", "--image-size", "64", *ONE_STEP],
        RETRIEVAL,
        ["identification_small", *LANGUAGE],
    ],
    ids=lambda task: task[0],
)
def test_each_task_leaves_what_it_has_trained(task: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["evaluate", task[0], "--encoder", "untrained:demo", *task[1:], "--out", str(out)]) == 0
    trained = load_checkpoint(out)["model"]
    exported = load_encoder(str(out)).model.state_dict()
    untrained = encoder_of("untrained:demo").model.state_dict()
    assert any(not torch.equal(tensor, untrained[name]) for name, tensor in exported.items() if name in untrained)
    for name, tensor in exported.items():
        assert any(torch.equal(trained[key], tensor) for key in trained if key.endswith(f".{name}")), name


def test_a_classifier_is_left_with_its_classes_and_what_it_was_shown(tmp_path: Path) -> None:
    finetune = ["evaluate", "finetune", "--encoder", "untrained:demo", "--scenes", "100", *ONE_STEP, "--loop.batch-size", "50"]
    assert main([*finetune, "--shown", "0.5", "--out", str(tmp_path / "finetuned")]) == 0
    said = json.loads((tmp_path / "finetuned" / "export" / "timm" / "config.json").read_text())
    assert said["label_names"] == PLACE_NAMES
    assert said["pretrained_cfg"]["crop_pct"] == 0.5


def test_an_evaluation_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SEGMENTATION, "--out", str(tmp_path / "segmented")]) == 0
    for command in (["export", str(tmp_path / "segmented"), "--to", "timm"], ["resume", str(tmp_path / "segmented")]):
        code = main(command)
        assert code == (2 if command[0] == "export" else 0), "it can be resumed, and has nothing left to do"
    said = capsys.readouterr().err.strip().splitlines()
    assert (
        f"evomask: {tmp_path / 'segmented'} is the folder of an evaluation (segmentation), and not of what is asked for" in said
    )
