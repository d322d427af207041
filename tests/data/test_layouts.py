"""The layouts give the same images, and what a path names is told from what lies there."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from evomask.cli import main
from evomask.data.decode import decode
from evomask.data.image_folder import ImageFolder
from evomask.data.layouts import open_encoded, open_images
from evomask.data.loader import load_batches
from evomask.data.pretraining import PretrainingImages
from evomask.data.sampler import StepSampler


@pytest.fixture
def roots(tmp_path, samples, write_folder, write_parquet, write_tar) -> dict[str, Path]:
    (tmp_path / "tar").mkdir()
    (tmp_path / "tar" / "classes.txt").write_text("cat\ndog\neel\n")
    return {
        "folder": write_folder(samples, tmp_path / "folder"),
        "parquet": write_parquet(samples, tmp_path / "parquet"),
        "tar": write_tar(samples, tmp_path / "tar"),
    }


@pytest.mark.parametrize("layout", ["folder", "parquet", "tar"])
def test_every_layout_gives_the_bytes_that_were_written(roots, samples, layout):
    encoded = open_encoded(roots[layout])
    assert len(encoded) == len(samples)
    assert [encoded.get(index) for index in range(len(encoded))] == [(data, label) for _, data, label in samples]
    order = np.random.default_rng(0).permutation(len(samples)).tolist()
    assert [encoded.get(index) for index in order] == [samples[index][1:] for index in order]
    assert encoded.classes == ["cat", "dog", "eel"]

    images = open_images(roots[layout])
    assert torch.equal(images.image(13), decode(samples[13][1]))
    assert (images.label(13), images.classes, len(images)) == (1, ["cat", "dog", "eel"], 23)
    assert open_images(roots[layout], channels=1).image(0).shape[0] == 1


def test_a_run_sees_the_same_crops_in_every_layout(roots):
    def batches(root, workers):
        crops = PretrainingImages(open_images(root), (16, 16), channels=3, patches=4, seed=3)
        return list(load_batches(crops, StepSampler(23, 4, 3, range(12)), workers, "cpu"))

    expected = batches(roots["folder"], 0)
    for root in roots.values():
        for mine, theirs in zip(batches(root, 2), expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("layout", ["folder", "parquet", "tar"])
def test_another_process_is_handed_no_names(roots, layout):
    encoded = open_encoded(roots[layout])
    again = pickle.loads(pickle.dumps(encoded))
    assert [again.get(index) for index in range(23)] == [encoded.get(index) for index in range(23)]
    assert again.name(20) == encoded.name(20)
    assert again.index.path == encoded.index.path is not None
    assert encoded.name(20).encode() not in pickle.dumps(encoded)
    assert sum(array.nbytes for array in encoded.index.arrays.values()) > 0
    assert not any(array.flags.writeable for array in again.index.arrays.values())


@pytest.mark.parametrize("layout", ["parquet", "tar"])
def test_a_single_shard_or_a_pattern_names_its_images(roots, layout):
    shards = sorted(roots[layout].glob("train-*"))
    assert len(shards) == 3
    whole, first, last_two = (
        open_encoded(root) for root in (roots[layout] / "train-*", shards[0], roots[layout] / f"*0000[12]*.{layout}")
    )
    assert (len(whole), len(first), len(last_two)) == (23, 10, 13)
    assert last_two.read(0) == whole.read(10)


def test_a_snapshot_of_links_is_read_in_the_order_of_its_names(tmp_path, samples, write_parquet):
    """As the hub's client keeps them: names are links to files that are called by their hashes."""
    (tmp_path / "snapshot").mkdir()
    for number, shard in enumerate(sorted(write_parquet(samples, tmp_path / "blobs").iterdir())):
        blob = shard.rename(shard.with_name(f"{9 - number}cafe"))
        (tmp_path / "snapshot" / f"train-{number:05}-of-00003.parquet").symlink_to(blob)
    encoded = open_encoded(tmp_path / "snapshot")
    assert [encoded.read(index) for index in range(23)] == [data for _, data, _ in samples]


def test_mixed_and_empty_folders_are_one_line(tmp_path, roots, samples, write_folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no images in .*empty.*\.jpg.*and for parquet and tar files in the folder itself"):
        open_images(tmp_path / "empty")
    write_folder(samples[:1], roots["tar"])
    with pytest.raises(ValueError, match=r"tar holds both images and train-000000\.tar: give a folder with one or the other"):
        open_images(roots["tar"])
    (roots["parquet"] / "more.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds both parquet and tar files"):
        open_images(roots["parquet"])
    with pytest.raises(ValueError, match=r"there is no \.parquet or \.tar file like .*nothing\*"):
        open_images(tmp_path / "nothing*")
    (tmp_path / "words.txt").write_text("words")
    with pytest.raises(ValueError, match=r"words\.txt is a file: give the folder .* or a \.parquet or \.tar file"):
        open_images(tmp_path / "words.txt")


@pytest.mark.parametrize("name", ["0.tar.gz", "0.tgz", "0.tar.zst", "0.TAR.XZ"])
def test_compressed_shards_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    for root in (tmp_path, tmp_path / name):
        with pytest.raises(ValueError, match=rf"{name} is compressed, .*: unpack it to a \.tar file"):
            open_images(root)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        (
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"],
            r"'test-\*\.parquet'",
        ),
        (["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"], r"'imagenet1k-train-\*\.tar'"),
    ],
)
def test_splits_are_not_mixed(tmp_path, names, pattern):
    for name in names:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=rf"holds shards of several splits, .*{pattern}"):
        open_images(tmp_path)


def test_names_that_speak_of_one_split_are_not_several(tmp_path, samples, write_tar):
    for number, shard in enumerate(sorted(write_tar(samples, tmp_path).iterdir())):
        shard.rename(tmp_path / f"test-flight-train-{number}.tar")
    assert len(open_images(tmp_path)) == 23


def test_an_unlabelled_image_leaves_all_without_labels(tmp_path, samples, write_parquet):
    path, data, _ = samples[0]
    images = open_images(write_parquet([*samples, (path, data, -1)], tmp_path / "parquet"))
    assert (images.classes, images.label(3)) == ([], None)


def test_names_have_to_be_enough(tmp_path, roots, samples, write_parquet):
    (roots["tar"] / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match="tar has images of class 2, counted from 0, but names of 2 classes"):
        open_images(roots["tar"])
    (roots["tar"] / "classes.txt").unlink()
    assert open_images(roots["tar"]).classes == ["0", "1", "2"]
    with pytest.raises(ValueError, match="but names of 2 classes"):
        open_images(write_parquet(samples, tmp_path / "two", names=["cat", "dog"]))


def test_mistakes_on_the_command_line_are_one_line(tmp_path, roots, capsys):
    (roots["parquet"] / "train-00003.parquet").write_bytes(b"words")
    for root, words in [
        (roots["parquet"], "train-00003.parquet cannot be read as parquet"),
        (tmp_path / "x*.tar", "no .parquet"),
    ]:
        assert main(["pretrain", "demo", "--data.root", str(root), "--out", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_plain_folder_stays_a_folder(roots):
    (roots["folder"] / "notes.txt").write_text("words")
    assert isinstance(open_encoded(roots["folder"]), ImageFolder)
