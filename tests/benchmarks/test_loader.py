"""Both ways of loading read the same files, and are compared from end to end at the smallest size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.benchmarks.layouts import write_tar
from evomask.benchmarks.loader import IMAGENET_SIZE, LoaderConfig, RecipeImages, compare_loaders, read, read_like_recipe
from evomask.cli import main

LAYOUTS = ["image folder", "tar shards", "parquet, row groups of 100", "parquet, row groups of 10"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(tmp_path / f"{number}.jpg")
    return tmp_path


def test_rows_of_all_tables(folder: Path) -> None:
    threads = torch.get_num_threads()
    tables = compare_loaders(LoaderConfig(root=folder, images=4, batch_size=2, size=16, workers=1, turns=1, laid_out=12))
    assert [len(table.rows) for table in tables] == [4, 3, 2, 2, 4, 4, 4]
    for table in tables[4:]:
        assert [row.name for row in table.rows] == LAYOUTS
    for table in tables[:4]:
        assert [row.name for row in table.rows[:2]] == ["evomask", "MAE's recipe"]
        assert all(0 < row.milliseconds < torch.inf and 0 < row.ratio < torch.inf for row in table.rows)
    assert tables[0].title == "loading 4 files, one thread, ms an image"
    assert torch.get_num_threads() == threads


def test_without_a_folder_scenes_are_loaded(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("evomask.benchmarks.loader.read_like_recipe", lambda path: seen.append(path) or read_like_recipe(path))
    options = ["--images", "2", "--batch-size", "2", "--size", "32", "--workers", "1", "--turns", "1", "--laid-out", "4"]
    assert main(["bench", "loader", *options]) == 0
    assert "loading 2 files, --workers 1" in capsys.readouterr().out
    assert {path.suffix for path in seen} == {".jpg"}
    assert not any(path.exists() for path in seen)


def test_the_recipe_decodes_the_same_pixels_and_normalises(folder: Path) -> None:
    path = folder / "0.jpg"
    pixels = read(path)
    assert np.array_equal(pixels.permute(1, 2, 0), np.asarray(read_like_recipe(path)))
    grey = Image.new("RGB", IMAGENET_SIZE, (128, 128, 128))
    image = RecipeImages([path], 16, lambda _: grey)[0]
    assert image.shape == (3, 16, 16)
    # Mean and standard deviation of ImageNet's red: 0.485, 0.229.
    torch.testing.assert_close(image[0], torch.full((16, 16), (128 / 255 - 0.485) / 0.229))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--batch-size 6", "5 images fill no batch of 6: lower --batch-size"),
        ("--turns 0", "at least 1"),
        ("--laid-out 8 --batch-size 9", "--laid-out 8 images fill no batch of 9"),
        ("--images 3 --batch-size 4", "3 images fill no batch of 4"),
    ],
)
def test_mistakes_are_one_line(folder: Path, arguments: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "loader", "--root", str(folder), *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_a_broken_file_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "3.jpg").write_text("words")
    assert main(["bench", "loader", "--root", str(folder), "--batch-size", "5"]) == 2
    assert "3.jpg cannot be read" in capsys.readouterr().err


def test_shards_are_for_the_benchmark_to_make(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tar([((folder / "0.jpg").read_bytes(), 0)], tmp_path / "shards")
    assert main(["bench", "loader", "--root", str(tmp_path / "shards")]) == 2
    assert "holds shards: give a folder of image files" in capsys.readouterr().err
