"""All layouts are opened and their workers measured, at the smallest size."""

import os
from pathlib import Path

import pytest
import torch

from evomask.benchmarks import index as benchmark
from evomask.benchmarks.index import IndexConfig, compare_indices
from evomask.cli import main
from evomask.data.images import EncodedImages
from evomask.data.layouts import open_encoded


def test_rows_of_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, cache = [], os.environ.get("EVOMASK_CACHE")

    def open_and_look(root: Path) -> EncodedImages:
        images = open_encoded(root)
        opened.append((len(images), len(images.classes), images.get(13)))
        return images

    monkeypatch.setattr(benchmark, "open_encoded", open_and_look)
    tables = compare_indices(IndexConfig(images=30, classes=3, turns=1, scratch=tmp_path))
    assert [[row.name for row in table.rows] for table in tables] == [
        ["evomask, index made", "evomask, index there", *more] for more in (["torchvision"], [], [])
    ]
    for table in tables:
        assert all(0 < row.milliseconds < torch.inf for row in table.rows)
        assert all(row.share_mib is not None and row.share_mib > 0 for row in table.rows[1:])
    assert opened[0] == (30, 3, (b"10", 1))  # in a folder, images of class 0 come first
    assert opened[-1] == (30, 3, (b"13", 1))
    assert os.environ.get("EVOMASK_CACHE") == cache
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("option", "words"), [("--turns 0", "must be at least 1"), ("--scratch nowhere", "no folder nowhere")])
def test_mistakes_are_one_line(option: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "index", *option.split()]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
