"""A tokenizer trained from beginning to end, as the command does it: what it leaves, resuming, collapse, and a BEiT on it."""

import json
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from PIL import Image

from evomask.cli import main
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.metrics import MONITOR, read_metrics
from evomask.engine.tokenizer import TokenizerStep, TrainTokenizerConfig
from evomask.models.discrete_vae import DiscreteVAE, DiscreteVAEConfig
from evomask.models.tokenizers import load_tokenizer
from evomask.recipes.tokenizer import load_trained

TINY = "--data.scenes 48 --data.workers 0 --image-size 32 32 --model.levels 5 4 --model.width 8 --model.blocks 0 --measured 24"
TINY = f"{TINY} --train.epochs 3 --train.batch-size 16 --train.log-every 1 --least-perplexity 1.5 --train.device cpu".split()


@cache
def run_of() -> Path:
    run = Path(mkdtemp()) / "tokenizer"
    assert main(["train-tokenizer", *TINY, "--out", str(run)]) == 0
    return run


def test_it_leaves_a_tokenizer_its_figures_and_a_picture() -> None:
    run = run_of()
    result = json.loads((run / "result.json").read_text())
    assert result["task"] == "train-tokenizer" and result["metrics"].keys() == {"perplexity", "codes_used", "psnr"}
    assert 1.5 < result["metrics"]["perplexity"] <= 20 and 0 < result["metrics"]["codes_used"] <= 100
    rows, looks = read_metrics(run), read_metrics(run, MONITOR)
    assert len(rows) == 9 and all(1 <= row["perplexity"] <= 20 and 0 < row["codes_used"] <= 100 for row in rows)
    assert [look["epoch"] for look in looks] == [0, 1, 2, 3]
    assert {name: looks[-1][name] for name in result["metrics"]} == result["metrics"]
    assert rows[-1]["loss"] < rows[0]["loss"] and looks[-1]["psnr"] > looks[0]["psnr"]
    with Image.open(run / "reconstructions.png") as picture:
        assert min(picture.size) > 100
    page = (run / "report.html").read_text()
    assert "Perplexity of a tokenizer" in page and "peak signal-to-noise ratio" in page

    tokenizer, _ = load_tokenizer(str(run))
    trained, config = load_trained(run)
    assert isinstance(config, TrainTokenizerConfig) and isinstance(tokenizer, DiscreteVAE)
    for name, tensor in load_checkpoint(run)["model"].items():
        assert tokenizer.state_dict()[name].equal(tensor) and trained.state_dict()[name].equal(tensor)


def test_what_is_left_of_an_image_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "tokens.png"
    Image.linear_gradient("L").convert("RGB").save(photo)
    run = run_of()
    capsys.readouterr()
    assert main(["show", "reconstruction", "--encoder", str(run), str(photo), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n" and out.exists()
    assert main(["show", "masks", "--encoder", str(run), str(photo), "--out", str(tmp_path / "masks.png")]) == 2
    assert "has trained a tokenizer, which is no encoder" in capsys.readouterr().err


def interrupted(after: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Send the process a SIGTERM in that step."""
    calls, plain = [], TokenizerStep.__call__

    def step_and_signal(self: TokenizerStep, batch: Any, progress: float) -> Any:
        calls.append(progress)
        if len(calls) == after:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(self, batch, progress)

    patch = monkeypatch.context()
    patch.__enter__().setattr(TokenizerStep, "__call__", step_and_signal)
    return lambda: patch.__exit__(None, None, None)


def test_one_that_was_stopped_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    undo = interrupted(4, monkeypatch)
    assert main(["train-tokenizer", *TINY, "--out", str(run)]) == 143
    undo()
    assert f"`evomask resume {run}` goes on" in capsys.readouterr().err
    with pytest.raises(ValueError, match="has left no tokenizer: `evomask resume"):
        load_tokenizer(str(run))
    torch.rand(5)
    assert main(["resume", str(run)]) == 0
    torch.testing.assert_close(load_checkpoint(run)["model"], load_checkpoint(run_of())["model"], rtol=0, atol=0)
    assert load_tokenizer(str(run))[0].state_dict().keys() == load_tokenizer(str(run_of()))[0].state_dict().keys()


def test_a_collapsed_codebook_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build_collapsed(config: DiscreteVAEConfig) -> DiscreteVAE:
        model = DiscreteVAE(config)
        torch.nn.init.zeros_(model.encoder[-1].weight)  # pyright: ignore[reportArgumentType]
        return model

    monkeypatch.setattr(DiscreteVAEConfig, "build", build_collapsed)
    run = tmp_path / "run"
    assert main(["train-tokenizer", *TINY, "--optim.base-lr", "0", "--out", str(run)]) == 2
    [message] = [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line]
    assert "images are told in 1.0 of 20 tokens (--least-perplexity 1.5)" in message and "another --optim.base-lr" in message
    assert not (run / "tokenizer").exists() and not (run / "result.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image-size", "30", "32"], "--model.stride 8 does not divide --image-size 30 32"),
        (["--model.levels", "1"], "--model.levels are at least 2 each"),
        (["--least-perplexity", "30"], "--least-perplexity lies from 1 to below the number of tokens, 20"),
        (["--measured", "0"], "--measured must be at least 1"),
        (["--train.parallel", "fsdp"], "too few weights to be sharded"),
        (["--model.widht", "8"], "did you mean --model.width"),
        (["--data.root", "nowhere"], "nowhere"),
    ],
)
def test_what_a_user_can_get_wrong_is_said_in_a_line(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-tokenizer", *TINY, *flags, "--out", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("evomask: ") and message in line
    assert not (tmp_path / "run").exists()


BEIT = "--host.encoder.image-size 32 32 --host.encoder.patch-size 8 --host.encoder.width 16 --host.encoder.depth 2"
BEIT += " --host.encoder.heads 2 --data.scenes 32 --data.workers 0 --train.epochs 3 --train.batch-size 8 --train.device cpu"
BEIT = ["vit_tiny_beit_112", *f"{BEIT} --train.log-every 1 --monitor.every 0 --masking.min-block 2".split()]


def test_a_beit_predicts_its_tokens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "beit"
    assert main(["pretrain", *BEIT, "--host.tokenizer", str(run_of()), "--out", str(run)]) == 0
    host = json.loads((run / "config.json").read_text())["config"]["host"]
    assert (host["tokenizer"], host["vocabulary"]) == (str(run_of()), 20)
    assert host["tokenizer_sha256"] == load_tokenizer(str(run_of()))[1]
    assert main(["resume", str(run)]) == 0
    capsys.readouterr()

    weights = run_of() / "tokenizer" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + b"\0\0\1\0")
    assert main(["resume", str(run)]) == 2
    assert "is not the one that this run began with" in capsys.readouterr().err
    weights.write_bytes(whole)
    assert main(["export", str(run), "--to", "timm", "--out", str(tmp_path / "timm")]) == 0


def test_a_beit_without_one_says_where_to_get_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", *BEIT, "--out", str(tmp_path / "run")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "name one, --host.tokenizer" in line and "`evomask train-tokenizer --data.root IMAGES` makes one" in line
    assert not (tmp_path / "run").exists()
