"""Against the library `webdataset`, and shards written by `tarfile` for what is special."""

import io
import json
import tarfile

import pytest

from evomask.data.decode import UnreadableImage
from evomask.data.layouts import open_encoded, open_images


def write(path, members, format=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def picture(samples):
    return samples[0][1]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that it leaves open
def test_webdataset_reads_the_same(tmp_path, samples, write_tar):
    webdataset = pytest.importorskip("webdataset")
    encoded = open_encoded(write_tar(samples, tmp_path))
    shards = sorted(map(str, tmp_path.glob("*.tar")))
    theirs = list(webdataset.WebDataset(shards, shardshuffle=False))
    assert len(encoded) == len(theirs) == 23
    for index, sample in enumerate(theirs):
        assert encoded.get(index) == (sample["jpg"], int(sample["cls"]))
        assert encoded.name(index) == f"{sample['__url__']}:{sample['__key__']}"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that it leaves open
def test_keys_end_at_the_first_dot_of_the_files_name(tmp_path, picture):
    webdataset = pytest.importorskip("webdataset")
    members = [
        ("a.b/0.seg.png", b"no image"),
        ("a.b/0.JPG", picture),
        ("a.b/0.cls", b"1\n"),
        ("a.b/1.0.webp", b""),
        ("1.png", b"p"),
    ]
    path = write(tmp_path / "x.tar", members)
    encoded = open_encoded(path)
    assert [encoded.name(index) for index in range(len(encoded))] == [f"{path}:a.b/0", f"{path}:1"]
    assert encoded.read(0) == picture
    keys = {sample["__key__"]: set(sample) for sample in webdataset.WebDataset(str(path), shardshuffle=False)}
    assert {key for key, parts in keys.items() if parts & {"jpg", "png"}} == {"a.b/0", "1"}


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_every_kind_of_tar_file(tmp_path, picture, format):
    key = "folder/" * 13 + "ä" * 40  # long, and not ASCII: it does not fit into a plain header
    encoded = open_encoded(write(tmp_path / "x.tar", [(f"{key}.jpg", picture), ("1.jpg", b"1")], format))
    assert encoded.name(0).endswith(f"x.tar:{key}")
    assert [encoded.read(0), encoded.read(1)] == [picture, b"1"]


def test_labels_are_in_cls_or_json(tmp_path, picture):
    members = []
    for key, ending, content in [
        ("0", "cls", b"7"),
        ("1", "json", b'{"label": 2}'),
        ("2", "cls", b"007\n"),
        ("3", "json", b'{"label": 4}'),
    ]:
        members += [(f"{key}.{ending}", content), (f"{key}.jpeg", picture)]
    members.append(("3.cls", b"5"))
    encoded = open_encoded(write(tmp_path / "x.tar", members))
    assert [encoded.label(index) for index in range(4)] == [7, 2, 7, 5]
    assert encoded.classes == [str(n) for n in range(8)]


@pytest.mark.parametrize("other", [[], [("1.json", b'{"caption": "a dog"}')], [("1.json", b'["a dog"]')]])
def test_where_one_has_no_label_none_has(tmp_path, picture, other):
    path = write(tmp_path / "x.tar", [("0.png", picture), ("0.cls", b"0"), ("1.png", picture), *other])
    images = open_images(path)
    assert (len(images), images.classes, images.label(0)) == (2, [], None)


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (("0.cls", b"cat"), r"x\.tar:0\.cls holds no number: b'cat'"),
        (("0.cls", b"3000000000"), r"x\.tar:0\.cls holds the label 3000000000, not one in 0 \.\.\. 2147483647"),
        (("0.json", b"{label"), r"x\.tar:0\.json holds no JSON"),
        (("0.json", json.dumps({"label": "cat"}).encode()), r"x\.tar:0\.json holds a label that is no number: 'cat'"),
    ],
)
def test_labels_that_are_none_are_named(tmp_path, picture, member, words):
    with pytest.raises(ValueError, match=words):
        open_images(write(tmp_path / "x.tar", [("0.jpg", picture), member]))


def test_a_shard_without_images(tmp_path):
    with pytest.raises(ValueError, match=r"no images in .*: looked for members of tar files that end in .*\.jpg"):
        open_images(write(tmp_path / "x.tar", [("0.txt", b"words"), (".jpg", b"no name before the dot")]))


def test_what_is_no_whole_tar_file_is_named(tmp_path, picture):
    path = write(tmp_path / "x.tar", [(f"{n}.jpg", picture * 9) for n in range(5)])
    whole = path.read_bytes()
    header = whole.index(b"3.jpg")
    for damaged in (b"words", whole[:2000], whole[: header + 200], whole[:header] + b"\1" * 512 + whole[header + 512 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.tar is no whole, uncompressed tar file: .*; unpack it or fetch it again"):
            open_images(path)


def test_an_unreadable_member_is_named_by_its_key(tmp_path, samples, picture):
    path = write(tmp_path / "x.tar", [("0.jpg", picture), ("1.jpg", picture[:50]), ("2.jpg", picture)])
    images = open_images(path)
    with pytest.raises(UnreadableImage):
        images.image(1)
    assert images.name(1) == f"{path}:1"
    with path.open("r+b") as file:
        file.truncate(600)
    with pytest.raises(UnreadableImage, match="its shard has become shorter"):
        images.image(2)


def test_a_shard_that_is_gone(tmp_path, picture):
    path = write(tmp_path / "x.tar", [("0.jpg", picture)])
    images = open_images(path)
    path.unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        images.image(0)


def test_more_shards_than_are_kept_open(tmp_path, picture, monkeypatch):
    for number in range(70):
        write(tmp_path / f"{number:03}.tar", [(f"{number}.jpg", b"%d" % number)])
    encoded = open_encoded(tmp_path)
    assert [encoded.read(index) for index in range(70)] == [b"%d" % number for number in range(70)]
    assert encoded.read(0) == b"0"
