"""What a user can get wrong ends in exit code 2 and one line that says what to do; help ends in 0."""

import io
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evomask import cli
from evomask.cli import COMMANDS, main
from evomask.engine.signals import Stopped
from evomask.recipes import RECIPES

TINY = (
    *("--host.encoder.image-size", "32", "32", "--host.encoder.width", "32", "--host.encoder.depth", "2"),
    *("--host.encoder.heads", "2", "--host.decoder-width", "16", "--host.decoder-depth", "1", "--host.decoder-heads", "2"),
    *("--data.scenes", "16", "--data.workers", "0", "--train.epochs", "1", "--train.batch-size", "8", "--train.device", "cpu"),
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command makes by mistake is made in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVOMASK_TRACEBACK", raising=False)


def error_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that is used wrongly."""
    code = main(arguments)
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert code == 2
    assert output.out == ""
    assert len(lines) == 1, lines
    assert lines[0].startswith("evomask: ")
    return lines[0]


def made() -> list[str]:
    """What stands in the working folder."""
    return sorted(path.name for path in Path.cwd().iterdir())


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("pretrian demo", ["no command 'pretrian'", "did you mean 'pretrain'?"]),
        ("xyz", ["no command 'xyz'", *COMMANDS]),
        ("pretrain", ["name a recipe first", *RECIPES]),
        ("pretrain --train.epochs 3", ["name a recipe first"]),
        ("pretrain vit_tiny_mea", ["no recipe 'vit_tiny_mea'", "did you mean 'vit_tiny_mae'?"]),
        ("pretrain vit_tiny_mae_12", ["did you mean 'vit_tiny_mae_112'?"]),
        ("pretrain qqq", ["no recipe 'qqq'", *RECIPES]),
        ("pretrain demo --train.epoch 3", ["--train.epoch", "did you mean --train.epochs", "evomask pretrain demo --help"]),
        ("pretrain demo --epochs 3", ["--epochs", "did you mean --optim.warmup-epochs or --train.epochs?"]),
        ("pretrain demo --data.rot x", ["--data.rot", "did you mean --data.root"]),
        ("pretrain demo photos", ["photos", "evomask pretrain demo --help"]),
        ("pretrain demo --train.epochs many", ["--train.epochs", "'many'"]),
        ("pretrain demo --train.epochs 1.5", ["--train.epochs", "'1.5'"]),
        ("pretrain demo --train.epochs", ["Missing value", "--train.epochs"]),
        ("pretrain demo --data.flip maybe", ["--data.flip", "'maybe'", "True"]),
        ("pretrain demo --train.epochs 0", ["--train.epochs, or --loop.epochs, must be at least 1, not 0"]),
        ("pretrain demo --train.precision float16", ["--train.precision", "bfloat16"]),
        ("pretrain demo --host.encoder.image-size 32", ["--host.encoder.image-size", "2 values"]),
        ("pretrain demo --data.mean 0.5", ["--data.mean and --data.std need one number for each of 3 channels"]),
        ("pretrain demo --masking.strategy rando", ["--masking.strategy must be one of evolved, random"]),
        ("pretrain demo --masking.ratio 75", ["mask ratio", "between 0 and 1", "75"]),
        ("pretrain demo --masking.affinity attn", ["affinity must be one of attention, popularity, profile, mutual, either"]),
        ("pretrain demo --host.encoder.name resnet50", ["resnet50"]),
        ("pretrain demo --host.encoder.name vit_tiny", ["timm knows no model 'vit_tiny'", "timm.list_models"]),
        ("pretrain demo --host.encoder.patch-size 9", ["patches of 9 x 9 px do not divide"]),
        ("pretrain demo --data.root nowhere", ["nowhere"]),
        ("pretrain demo --train.device gpu", ["'gpu'", "try auto"]),
        ("resume", ["run's folder", "evomask resume --help"]),
        ("resume a b", ["b", "evomask resume --help"]),
        ("resume nowhere", ["nowhere is no run folder"]),
        ("report nowhere", ["nowhere", "no run"]),
        ("export nowhere --to timm", ["nowhere is no run folder"]),
        ("export run", ["--to", "timm,transformers"]),
        ("export run --to onnx", ["'onnx'", "'timm', 'transformers'"]),
        ("evaluate", ["name a task first", "knn"]),
        ("evaluate kn --encoder timm:x", ["no task 'kn'", "did you mean 'knn'?"]),
        ("evaluate knn", ["--encoder", "untrained:RECIPE"]),
        ("evaluate knn --encoder nowhere", ["no encoder 'nowhere'", "timm:NAME"]),
        ("evaluate knn --encoder untrained:dem", ["no recipe 'dem'", "did you mean 'demo'?"]),
        ("evaluate knn --encoder untrained:nothing", ["no recipe 'nothing'", "`evomask pretrain --help` lists them"]),
        ("evaluate knn --encoder untrained:runs/nothing", ["there is no folder runs/nothing"]),
        ("evaluate knn --encoder untrained:demo --train photos", ["--train and --val"]),
        ("evaluate knn --encoder untrained:demo --train nowhere --val nowhere", ["nowhere"]),
        ("show", ["name a picture first", "masks, hierarchy, tree, attention, heads, class-attention, matches, distance"]),
        ("show matches --encoder untrained:demo one.png", ["matches are between two image files, not 1"]),
        ("show mask --encoder untrained:demo x.png", ["no picture 'mask'", "did you mean 'masks'?"]),
        ("show masks --encoder untrained:demo", ["image files"]),
        ("show masks --encoder untrained:demo nowhere.png", ["there is no image file nowhere.png"]),
        ("show masks --encoder untrained:demo --out x.txt y.png", ["--out must end in one of .png .webp .svg .pdf"]),
        ("show masks --encoder untrained:demo --dpi 0 y.png", ["--dpi must be at least 10"]),
        ("show masks --encoder nowhere x.png", ["no encoder 'nowhere'"]),
        ("show reconstruction --encoder nowhere x.png", ["nowhere is no run folder"]),
        ("show stages --encoder nowhere", ["nowhere is no run folder"]),
        ("show masks x.png", ["name an --encoder"]),
        ("show masks --encoder a --encoder b x.png", ["masks is of one --encoder", "distance, difficulty, gradients"]),
        (f"show difficulty{9 * ' --encoder a'} x.png", ["one picture compares at most 8 --encoder, not 9"]),
        ("show masks --encoder untrained:demo --out nowhere/x.png y.png", ["there is no folder nowhere"]),
        ("show health --encoder nowhere", ["nowhere is no run folder"]),
        ("show gradients --encoder nowhere", ["nowhere: no gradients were noted", "--gradients True"]),
        ("report", ["name a run"]),
        ("report a b", ["a is no run folder"]),
        ("report a a", ["a run is named twice"]),
        ("report a --out x.html", ["--out is of several runs"]),
        ("explore nowhere", ["no encoder 'nowhere'"]),
        ("explore --prot 1", ["did you mean --port?"]),
        ("show loss --encoder nowhere x.png", ["loss takes no image files"]),
        ("demo --ou x", ["--ou", "did you mean --out?"]),
    ],
)
def test_wrong_use_is_one_line_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: str, parts: list[str]
) -> None:
    line = error_of(capsys, *arguments.split())
    for part in parts:
        assert part in line
    assert [name for name in made() if name != "results"] == [], "a mistake leaves nothing behind"


def test_a_folder_that_is_no_run_is_none_for_any_command(capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes").mkdir()
    Path("notes/todo.txt").write_text("buy milk")
    for command in ("resume notes", "report notes", "export notes --to timm", "evaluate knn --encoder notes"):
        assert "notes" in error_of(capsys, *command.split())


def test_a_run_that_exists_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("run").mkdir()
    Path("run/config.json").write_text("{}")
    line = error_of(capsys, "pretrain", "demo", "--out", "run", *TINY)
    assert "run exists and is not empty (`evomask resume run` goes on with it): choose another --out" in line
    assert Path("run/config.json").read_text() == "{}"


def test_an_evaluation_that_exists_is_not_overwritten(capsys: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/result.json").write_text("{}")
    line = error_of(capsys, "evaluate", "knn", "--encoder", "untrained:demo", "--scenes", "8", "--out", "out")
    assert "out holds a result already: choose another --out" in line
    assert Path("out/result.json").read_text() == "{}"


# Folders of images that cannot be used


def write_photos(folder: Path, count: int) -> None:
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(folder / f"{number:03}.jpg")


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("kind", ["missing", "empty", "texts", "a file"])
def test_a_folder_without_images_is_named(capsys: pytest.CaptureFixture[str], kind: str, workers: str) -> None:
    if kind == "a file":
        Path("photos").write_text("no folder")
    elif kind != "missing":
        Path("photos").mkdir()
        for number in range(3 if kind == "texts" else 0):
            Path(f"photos/{number}.txt").write_text("no image")
    line = error_of(capsys, "pretrain", "demo", "--out", "run", *TINY, "--data.root", "photos", "--data.workers", workers)
    assert "photos" in line
    assert not Path("run").exists(), "so that the next try may have the same --out"


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("broken", [range(3, 7), range(16)])
def test_too_many_files_that_cannot_be_read_stop_the_run(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, broken: range, workers: str
) -> None:
    write_photos(Path("photos"), 16)
    for number in broken:
        photo = Path(f"photos/{number:03}.jpg")
        os.truncate(photo, photo.stat().st_size // 2)
    with caplog.at_level(logging.WARNING):
        code = main(["pretrain", "demo", "--out", "run", *TINY, "--data.root", "photos", "--data.workers", workers])
    lines = capfd.readouterr().err.splitlines()
    assert code == 2
    assert "Traceback" not in "".join(lines)
    assert lines[-1].startswith("evomask: ")
    assert "photos" in lines[-1]
    assert len(lines[-1]) < 400, "no traceback of a worker inside the line"


def test_one_truncated_photo_among_many_is_named_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    write_photos(Path("photos"), 120)
    broken = Path("photos/060.jpg")  # one of those that pictures are made of at every stage
    os.truncate(broken, broken.stat().st_size // 2)
    with caplog.at_level(logging.WARNING):
        assert main(["pretrain", "demo", "--out", "run", *TINY, "--data.root", "photos"]) == 0
    assert caplog.text.count("060.jpg") == 1
    assert len(list(Path("run/snapshots").iterdir())) == 3


def test_a_broken_photo_in_an_evaluation_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        Path(split).mkdir()
        for name in ("cat", "dog"):
            write_photos(Path(split, name), 3)
    broken = Path("val/dog/001.jpg")
    os.truncate(broken, broken.stat().st_size // 2)
    for workers in ("0", "1"):
        options = ["--train", "train", "--val", "val", "--workers", workers, "--device", "cpu", "--out", "result"]
        assert main(["evaluate", "knn", "--encoder", "untrained:demo", *options]) == 2
        line = capfd.readouterr().err.splitlines()[-1]
        assert line.startswith(f"evomask: {broken} cannot be read: ")
        assert len(line) < 200


def test_fewer_images_than_a_batch_are_a_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    line = error_of(capsys, "pretrain", "demo", "--out", "run", *TINY, "--train.batch-size", "17")
    assert "16" in line
    assert "batch" in line
    assert not Path("run").exists()


# Help, usage and what is shown of errors


@pytest.mark.parametrize(("terminal", "encoding"), [(True, "utf-8"), (False, "utf-8"), (False, "ascii")])
def test_the_line_is_the_same_on_any_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool, encoding: str
) -> None:
    """tyro draws its box as the terminal allows: with colours or without, in ASCII or not."""
    stdout = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(stdout, "isatty", lambda: terminal, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stdout", stdout)
    assert main(["demo", "--ou", "x"]) == 2
    line = "evomask: Unrecognized options: --ou, x (did you mean --out?); see evomask demo --help\n"
    assert capsys.readouterr().err == line


def test_alone_it_prints_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    output = capsys.readouterr().out
    assert output.startswith("usage: evomask COMMAND")
    for name in COMMANDS:
        assert f"evomask {name}" in output


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("--help", list(COMMANDS)),
        ("-h", list(COMMANDS)),
        ("demo --help", ["--out"]),
        ("pretrain --help", list(RECIPES)),
        ("pretrain demo --help", ["--out", "--data.root", "--train.epochs", "--masking.strategy", "--host.encoder.name"]),
        ("pretrain vit_base_mae -h", ["4096"]),
        ("resume --help", ["usage: evomask resume"]),
        ("report --help", ["usage: evomask report"]),
        ("export --help", ["--to", "timm,transformers"]),
        ("evaluate --help", ["knn"]),
        ("evaluate knn --help", ["--encoder", "--k", "--temperature"]),
    ],
)
def test_help_is_printed_and_nothing_is_done(capsys: pytest.CaptureFixture[str], arguments: str, parts: list[str]) -> None:
    assert main(arguments.split()) == 0
    output = capsys.readouterr()
    for part in parts:
        assert part in output.out
    assert output.err == ""
    assert made() == []


def options_of(config: Any, prefix: str = "--") -> Iterator[tuple[str, str]]:
    """Every leaf of a configuration: its flag, and how its line in the docstring begins."""
    for option in fields(config):
        value = getattr(config, option.name)
        if is_dataclass(value):
            yield from options_of(value, f"{prefix}{option.name.replace('_', '-')}.")
        elif option.name not in ("recipe", "kind"):  # which say what they are, and are no options
            line = re.search(rf"^ +(\w+, )*{option.name}(, \w+)*: (\S+ \S+ \S+)", config.__doc__, re.MULTILINE)
            assert line, f"{type(config).__name__} says nothing of {option.name}"
            yield prefix + option.name.replace("_", "-"), line[3]


def test_every_option_of_a_recipe_has_a_word_of_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")  # no line is broken
    main(["pretrain", "demo", "--help"])
    text = capsys.readouterr().out
    options = dict(options_of(RECIPES["demo"]()))
    assert len(options) > 30
    for flag, words in options.items():
        assert f"{flag} " in text
        assert words in text, flag


def test_as_a_command(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "evomask.cli", *arguments], capture_output=True, text=True, check=False)

    usage = run()
    assert (usage.returncode, usage.stderr) == (2, "")
    assert usage.stdout.startswith("usage: evomask")
    wrong = run("pretrain", "demo", "--train.epochs", "many")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "Traceback" not in wrong.stderr


def raises(error: BaseException) -> Callable[[list[str]], None]:
    def command(_: list[str]) -> None:
        raise error

    return command


class OutOfMemoryError(RuntimeError):
    """As torch names it, on whatever device."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("two\n  lines"), 2, "two lines"),
        (FileNotFoundError(2, "No such file or directory", "x.jpg"), 2, "[Errno 2] No such file or directory: 'x.jpg'"),
        (OutOfMemoryError("CUDA out of memory. Tried to ..."), 2, "the number of micro-batches"),
        (Stopped(15, 7, Path("run")), 143, "stopped by SIGTERM after 7 steps, all saved: `evomask resume run` goes on"),
        (Stopped(2, 7, Path("run")), 130, "stopped by SIGINT after 7 steps, all saved: `evomask resume run` goes on"),
        (KeyboardInterrupt(), 130, "stopped by SIGINT"),
    ],
)
def test_expected_errors_are_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, line: str
) -> None:
    monkeypatch.setitem(cli.COMMANDS, "demo", raises(error))
    assert main(["demo"]) == code
    output = capsys.readouterr().err
    assert output.count("\n") == 1
    assert line in output


def test_demo_is_told_where_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path | None] = []
    monkeypatch.setattr("evomask.recipes.demonstration.run_demo", folders.append)
    assert [main(["demo"]), main(["demo", "--out", "mine"])] == [0, 0]
    assert folders == [None, Path("mine")]


def test_mistakes_of_the_program_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cli.COMMANDS, "demo", raises(ZeroDivisionError("a bug")))
    with pytest.raises(ZeroDivisionError):
        main(["demo"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_leaves_early_is_no_error(unbuffered: str) -> None:
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [sys.executable, "-m", "evomask.cli", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_mistake_is_said_even_where_the_reader_has_left() -> None:
    program = "import sys; from evomask.cli.errors import exit_code\n"
    program += "def fail():\n    print('begun')\n    raise ValueError('no such file')\n"
    program += "sys.exit(exit_code(fail))"
    reader, writer = os.pipe()
    os.close(reader)
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    ended = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(writer)
    assert ended.stderr.splitlines()[0] == "evomask: no such file"


def test_a_traceback_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVOMASK_TRACEBACK", "1")
    with pytest.raises(ValueError, match="no command"):
        main(["pretrian"])


def test_a_warning_of_the_hub_is_printed_once() -> None:
    """Such as one that says that there is no network, and that it tries again."""
    warn = "from huggingface_hub.utils import logging; logging.get_logger('huggingface_hub.tried').warning('once more')"
    program = f"from evomask.cli import main; main(['--version']); {warn}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [line for line in ended.stderr.splitlines() if "once more" in line] == ["once more"]
