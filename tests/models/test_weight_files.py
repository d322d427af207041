"""Files of weights: what is read, and what is refused without running anything."""

import argparse
import json
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evomask.models.weight_files import read_folder_weights, read_weights

WEIGHTS = {"a": torch.ones(2), "b": torch.zeros(3)}


class Settings(dict):
    """Stands for the configuration classes of other programs."""


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.bin"])
def test_tensors_by_name(tmp_path: Path, name: str) -> None:
    (save_file if name.endswith("safetensors") else torch.save)(WEIGHTS, tmp_path / name)
    torch.testing.assert_close(read_weights(tmp_path / name), WEIGHTS)


@pytest.mark.parametrize(
    "content",
    [
        {"model": WEIGHTS, "optimizer": {"state": {0: torch.ones(9)}}, "epoch": 3},
        {"state_dict": {f"module.{key}": tensor for key, tensor in WEIGHTS.items()}},
        {"model": {f"_orig_mod.{key}": tensor for key, tensor in WEIGHTS.items()}},
        {"model": {"x": torch.ones(1)}, "model_ema": WEIGHTS},
        {"model": WEIGHTS, "model_ema": None, "best": torch.tensor(0.5)},
        {"student": {"x": torch.ones(1)}, "teacher": WEIGHTS, "args": argparse.Namespace(arch="vit_small", lr=0.1)},
        {"model": {"state_dict": WEIGHTS | {"version": 2}}},
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_wrappers_are_opened(tmp_path: Path, content: dict, old: bool) -> None:
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    torch.testing.assert_close(read_weights(tmp_path / "w.pth"), WEIGHTS)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"model": WEIGHTS, "config": Settings(lr=0.1)}, "Settings"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"model": WEIGHTS, "hook": Bomb()}, "mkdir"),
    ],
    ids=["configuration", "module", "bomb"],
)
def test_pickles_that_need_more_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, found: str, old: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(ValueError, match=rf"w.pth holds more than weights \(.*({found})\), and to open it could run") as caught:
        read_weights(tmp_path / "w.pth")
    assert "torch.load('w.pth', weights_only=False)" in str(caught.value), "it says what to do"
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "exploded").exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), str(tmp_path / "w.pt"))
    with pytest.raises(ValueError, match=r"w.pt holds a TorchScript program.*torch.jit.load\('w.pt', map_location='cpu'\)"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("content", [b"", b"hello world, this is text\n", b"<!DOCTYPE html>", b"\x80\x02", None])
def test_what_is_no_file_of_weights(tmp_path: Path, ending: str, content: bytes | None) -> None:
    path = tmp_path / f"w{ending}"
    if content is None:  # cut short
        (save_file if ending == ".safetensors" else torch.save)(WEIGHTS, path)
        content = path.read_bytes()[:-50]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w[.].* is no .*, or not a whole one$") as caught:
        read_weights(path)
    assert len(str(caught.value).splitlines()) == 1


def test_files_without_tensors(tmp_path: Path) -> None:
    for content, only in (([1, 2], "$"), ({"epoch": 3}, ", only epoch$"), ({"model": {"depth": 3}}, ", only model$")):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(ValueError, match=f"w.pth holds no named tensors{only}"):
            read_weights(tmp_path / "w.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}, protocol=2))
    with pytest.raises(ValueError, match=r"plain\.pth is no file that torch.save wrote"):
        read_weights(tmp_path / "plain.pth")


def test_files_that_are_not_there_or_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no file .*w\.pth"):
        read_weights(tmp_path / "w.pth")
    (tmp_path / "w.npz").write_text("x")
    with pytest.raises(ValueError, match=r"its name must end in one of \.safetensors \.pth \.pt \.bin"):
        read_weights(tmp_path / "w.npz")


def test_folders_with_one_file_or_with_several(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no weights: none of model\.safetensors, .* is there"):
        read_folder_weights(tmp_path)
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    torch.testing.assert_close(read_folder_weights(tmp_path), WEIGHTS)
    index = {"weight_map": {key: f"model-{key}.safetensors" for key in WEIGHTS}}
    for key, tensor in WEIGHTS.items():
        save_file({key: tensor + 1}, tmp_path / f"model-{key}.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    torch.testing.assert_close(read_folder_weights(tmp_path), {key: tensor + 1 for key, tensor in WEIGHTS.items()})
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ValueError, match=r"index\.json is no index of weight files"):
        read_folder_weights(tmp_path)
