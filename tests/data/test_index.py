"""An index is made once, and never outlives what it speaks of."""

import logging
import multiprocessing
import os
import stat
import time
from pathlib import Path

import numpy as np
import pytest

from evomask.data import index as index_module
from evomask.data.index import Index, cache_folder, load_index, pack_names, stamp
from evomask.data.layouts import open_encoded, open_images


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("EVOMASK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def age(root: Path) -> Path:
    """As if nothing had been touched for a minute."""
    past = time.time() - 60
    for path in (root, *root.rglob("*")):
        os.utime(path, (past, past))
    return root


@pytest.fixture(params=["folder", "parquet", "tar"])
def root(request, tmp_path, samples) -> Path:
    return age(request.getfixturevalue(f"write_{request.param}")(samples, tmp_path / "images"))


@pytest.fixture
def builds(monkeypatch) -> list[str]:
    """Paths of the indices that were made."""
    made, save = [], index_module._save
    monkeypatch.setattr(index_module, "_save", lambda index, path, began_ns: made.append(path) or save(index, path, began_ns))
    return made


def all_of(root):
    encoded = open_encoded(root)
    return [(*encoded.get(index), encoded.name(index)) for index in range(len(encoded))]


def test_it_is_made_once(root, cache, builds):
    first = all_of(root)
    assert all_of(root) == first
    assert len(builds) == 1
    assert [path.suffix for path in sorted(cache.iterdir())] == [".lock", ".safetensors"]


def test_an_image_or_shard_more_or_less_is_seen(root, builds):
    before = all_of(root)
    file = max(path for path in root.rglob("*") if path.is_file())
    kept = file.read_bytes()
    file.unlink()
    fewer = all_of(root)
    assert 0 < len(fewer) < len(before)
    file.write_bytes(kept)
    assert all_of(root) == before
    file.rename(file.with_stem("a-new-name-train"))
    assert {name for *_, name in all_of(root)} != {name for *_, name in before}
    assert len(builds) == 4


def test_a_new_sub_folder_is_seen(tmp_path, samples, write_folder, builds):
    root = age(write_folder(samples[:9], tmp_path / "images"))
    assert open_images(root).classes == ["cat", "dog"]
    write_folder(samples, root)
    assert open_images(root).classes == ["cat", "dog", "eel"]


def test_a_shard_that_was_written_again_is_seen(tmp_path, samples, write_tar):
    root = age(write_tar(samples, tmp_path / "images"))
    assert len(all_of(root)) == 23
    write_tar([*samples, *samples[:4]], root)
    assert len(all_of(root)) == 27


def test_what_changed_a_moment_ago_may_change_again_in_the_same_tick(tmp_path, samples, write_folder, builds):
    root = write_folder(samples, tmp_path / "images")
    first = all_of(root)
    assert all_of(root) == first
    assert len(builds) == 2
    age(root)
    assert all_of(root) == first
    assert all_of(root) == first
    assert len(builds) == 3


@pytest.mark.parametrize("damage", ["cut", "flipped", "words", "empty", "other version"])
def test_a_damaged_index_is_made_again(root, cache, builds, damage, caplog, monkeypatch):
    first = all_of(root)
    (path,) = cache.glob("*.safetensors")
    data = path.read_bytes()
    if damage == "other version":
        monkeypatch.setattr(index_module, "FORMAT", "0")
    else:
        flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
        # Another file in its place: whoever has mapped the old one keeps it.
        path.unlink()
        path.write_bytes({"cut": data[:-1], "flipped": flipped, "words": b"words", "empty": b""}[damage])
    with caplog.at_level(logging.WARNING, logger="evomask"):
        assert all_of(root) == first
        assert all_of(root) == first
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith(f"the index {path} cannot be used and is made again: ")
    assert len(builds) == 2


def test_a_read_only_data_folder(root, builds):
    for path in (*root.rglob("*"), root):
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert len(all_of(root)) == 23
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    root.chmod(0o755)


def test_a_cache_that_cannot_be_written_costs_time_alone(root, cache, caplog):
    first = all_of(root)
    for path in cache.iterdir():
        path.unlink()
    cache.rmdir()
    cache.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING, logger="evomask"):
        assert all_of(root) == first
    assert "the index cannot be kept in" in caplog.text


def test_where_indices_lie(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("EVOMASK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "evomask"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "evomask"


def test_two_data_sets_of_the_same_name(tmp_path, samples, write_folder, cache):
    one, other = (age(write_folder(part, tmp_path / where / "images")) for where, part in (("a", samples), ("b", samples[:3])))
    assert (len(open_images(one)), len(open_images(other)), len(open_images(one))) == (23, 3, 23)
    assert len(list(cache.glob("images-*.safetensors"))) == 2


def test_names_of_any_bytes_come_back(tmp_path):
    names = ["a", "", "ä/\U0001f600", os.fsdecode(b"\xff\xfe.jpg")]
    index = Index(pack_names(names), {}, [])
    assert [index.name(number) for number in range(4)] == names


def _load_slowly(folder: Path, barrier, results) -> None:
    def build():
        with (folder / "log").open("a") as log:
            log.write("made\n")
        time.sleep(0.5)
        return Index({"labels": np.arange(1000, dtype=np.int32)}, {"classes": ["a"]}, [stamp(str(folder / "data"))])

    barrier.wait()
    results.put(int(load_index("test", str(folder), build).arrays["labels"].sum()))


def test_processes_that_begin_together_make_it_once(tmp_path, cache):
    (tmp_path / "data").mkdir()
    age(tmp_path)
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(3, timeout=60), context.Queue()
    processes = [context.Process(target=_load_slowly, args=(tmp_path, barrier, results)) for _ in range(3)]
    for process in processes:
        process.start()
    assert [results.get(timeout=60) for _ in processes] == [499_500] * 3
    for process in processes:
        process.join()
    assert (tmp_path / "log").read_text() == "made\n"
    assert not list(cache.glob("*.tmp"))


def test_images_that_change_before_another_process_has_begun(tmp_path, samples, write_folder):
    root = age(write_folder(samples, tmp_path / "images"))
    reopen, arguments = open_encoded(root).index.__reduce__()
    write_folder([("new/0.jpg", b"", 0)], root)
    open_encoded(root)
    with pytest.raises(ValueError, match="was made anew, since the images changed: begin again"):
        reopen(*arguments)
