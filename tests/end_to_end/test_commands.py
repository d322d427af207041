"""The commands on a finished run, and Python beside the command line."""

import json
from importlib.metadata import version
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image

import evomask
from evomask.cli import main
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.metrics import read_metrics
from evomask.recipes.launch import load_host


def timeless(run: Path) -> list[dict[str, float]]:
    """The log without what depends on the clock."""
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in read_metrics(run)]


def test_python_does_what_the_command_does(tmp_path: Path, finished_run: Path, tiny_overrides: dict) -> None:
    run = evomask.pretrain("demo", out=tmp_path / "run", **tiny_overrides)
    assert run == tmp_path / "run"
    assert timeless(run) == timeless(finished_run)
    torch.testing.assert_close(load_checkpoint(run), load_checkpoint(finished_run), rtol=0, atol=0)
    configs = [json.loads((folder / "config.json").read_text()) for folder in (run, finished_run)]
    assert configs[0]["config"] == configs[1]["config"]


def test_the_command_is_kept(finished_run: Path) -> None:
    command = json.loads((finished_run / "config.json").read_text())["command"]
    assert command.startswith(f"evomask pretrain demo --out {finished_run} --host.encoder.image-size 32 32 ")


def test_a_finished_run_holds_both_exports_and_a_report(finished_run: Path) -> None:
    assert {path.name for path in (finished_run / "export").iterdir()} == {"timm", "transformers"}
    page = (finished_run / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert 'src="http' not in page


def test_resuming_a_finished_run_changes_nothing(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = load_checkpoint(finished_run), timeless(finished_run)
    assert main(["resume", str(finished_run)]) == 0
    assert capsys.readouterr().out == f"{finished_run}\n"
    torch.testing.assert_close(load_checkpoint(finished_run), before[0], rtol=0, atol=0)
    assert timeless(finished_run) == before[1]


@pytest.mark.parametrize("spec", ["run", "exported folder", "untrained:vit_tiny_mae_112"])
def test_an_encoder_is_evaluated(tmp_path: Path, finished_run: Path, capsys: pytest.CaptureFixture[str], spec: str) -> None:
    encoder = {"run": str(finished_run), "exported folder": str(finished_run / "export" / "timm")}.get(spec, spec)
    out = tmp_path / "result"
    options = ["--scenes", "24", "--workers", "0", "--device", "cpu", "--k", "5"]
    assert main(["evaluate", "knn", "--encoder", encoder, "--out", str(out), *options]) == 0
    printed, path = capsys.readouterr().out.splitlines()
    assert path == str(out / "result.json")
    record = json.loads((out / "result.json").read_text())
    assert record["task"] == "knn"
    assert record["metrics"] == json.loads(printed)
    assert set(record["metrics"]) == {"top1", "top5", "majority"}
    assert all(0 <= value <= 100 for value in record["metrics"].values())
    assert record["config"]["encoder"] == encoder
    assert record["config"]["task"]["k"] == 5
    assert record["versions"]["torch"] == version("torch")


def test_evaluations_without_out_are_counted(
    tmp_path: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["evaluate", "knn", "--encoder", str(finished_run), "--scenes", "24", "--workers", "0", "--device", "cpu"]
    assert [main(command), main(command)] == [0, 0]
    paths = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("{")]
    assert paths == ["results/knn/result.json", "results/knn-2/result.json"]
    first, second = (json.loads((tmp_path / path).read_text())["metrics"] for path in paths)
    assert first == second


@pytest.mark.parametrize("library", ["timm", "transformers"])
def test_weights_are_exported(tmp_path: Path, finished_run: Path, capsys: pytest.CaptureFixture[str], library: str) -> None:
    out = tmp_path / "weights"
    assert main(["export", str(finished_run), "--to", library, "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    assert {path.name for path in out.iterdir()} >= {"config.json", "model.safetensors"}
    same = finished_run / "export" / library / "model.safetensors"
    assert (out / "model.safetensors").read_bytes() == same.read_bytes()
    if library == "timm":
        host, _ = load_host(finished_run)
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        loaded = timm.create_model(f"local-dir:{out}", pretrained=True).eval()
        torch.testing.assert_close(loaded(images), host.encoder(images))


def test_an_export_does_not_overwrite_other_files(
    tmp_path: Path, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    assert main(["export", str(finished_run), "--to", "timm", "--out", str(tmp_path)]) == 2
    assert "choose another --out" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_report_is_written_again(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (finished_run / "report.html").unlink()
    assert main(["report", str(finished_run)]) == 0
    assert capsys.readouterr().out == f"{finished_run / 'report.html'}\n"
    assert (finished_run / "report.html").exists()


def test_a_run_has_one_name_a_folder(finished_run: Path, tiny_flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "demo", "--out", str(finished_run), *tiny_flags]) == 2
    assert f"`evomask resume {finished_run}` goes on with it" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["masks", "hierarchy", "attention", "reconstruction", "matches"])
def test_pictures_are_drawn_of_image_files(
    tmp_path: Path, finished_run: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    photo = tmp_path / "photo.jpg"
    Image.linear_gradient("L").convert("RGB").save(photo)
    command = ["show", kind, "--encoder", str(finished_run), str(photo), str(photo), "--out", str(tmp_path / "picture.png")]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'picture.png'}\n"
    with Image.open(tmp_path / "picture.png") as picture:
        assert min(picture.size) > 100
    assert main(command) == 2
    assert "picture.png exists: choose another --out" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["stages", "loss"])
def test_pictures_are_drawn_of_a_run(tmp_path: Path, finished_run: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    assert main(["show", kind, "--encoder", str(finished_run), "--out", str(tmp_path / "picture.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'picture.png'}\n"
    with Image.open(tmp_path / "picture.png") as picture:
        assert min(picture.size) > 100
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_bytes((finished_run / "config.json").read_bytes())
    assert main(["show", kind, "--encoder", str(tmp_path / "empty"), "--out", str(tmp_path / "other.png")]) == 2
    assert "evomask resume" in capsys.readouterr().err
