"""Against files that pyarrow writes, as `datasets` does."""

import sys

import pytest

from evomask.data.decode import UnreadableImage
from evomask.data.layouts import open_encoded, open_images
from evomask.data.parquet_shards import _open, _row_group

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def test_names_are_the_shard_and_the_row(tmp_path, samples, write_parquet):
    encoded = open_encoded(write_parquet(samples, tmp_path))
    assert [encoded.name(index) for index in (0, 9, 10, 22)] == [
        f"{tmp_path}/train-0000{shard}-of-00003.parquet:{row}" for shard, row in ((0, 0), (0, 9), (1, 0), (2, 2))
    ]


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_every_compression_and_size_of_row_groups(tmp_path, samples, compression):
    rows = [{"image": {"bytes": data, "path": path}, "label": label} for path, data, label in samples]
    for size in (1, 7, 100):
        path = tmp_path / f"{size}.parquet"
        parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=size, compression=compression)
        encoded = open_encoded(path)
        assert [encoded.get(index) for index in range(23)] == [(data, label) for _, data, label in samples]


def test_reading_in_order_reads_each_row_group_once(tmp_path, samples, write_parquet):
    encoded = open_encoded(write_parquet(samples, tmp_path))
    _row_group.cache_clear()
    for index in range(23):
        encoded.read(index)
    assert _row_group.cache_info().misses == 3 + 3 + 1


def test_empty_row_groups_and_files_take_no_number(tmp_path, samples, write_parquet):
    write_parquet(samples[:1], tmp_path)
    table = parquet.read_table(tmp_path / "train-00000-of-00001.parquet")
    with parquet.ParquetWriter(tmp_path / "train-0.parquet", table.schema) as writer:
        for part in (table[:0], table, table[:0]):
            writer.write_table(part)
    parquet.write_table(table[:0], tmp_path / "train-00000-of-00001.parquet")
    assert open_encoded(tmp_path).get(0) == samples[0][1:]
    assert len(open_encoded(tmp_path)) == 1
    (tmp_path / "train-0.parquet").unlink()
    with pytest.raises(ValueError, match=r"no images in .*: its parquet files have no rows"):
        open_images(tmp_path)


def test_rows_without_bytes_and_broken_ones_are_unreadable(tmp_path, samples, write_parquet):
    images = open_images(write_parquet([samples[0], ("a.jpg", None, 1), ("b.jpg", b"words", 2)], tmp_path))
    with pytest.raises(UnreadableImage, match="the row has no bytes"):
        images.image(1)
    with pytest.raises(UnreadableImage, match="it is of no format that Pillow knows"):
        images.image(2)
    assert images.name(2).endswith("train-00000-of-00001.parquet:2")


def test_a_shard_that_is_gone_or_damaged_is_unreadable(tmp_path, samples, write_parquet):
    images = open_images(write_parquet(samples, tmp_path))
    shards = sorted(tmp_path.iterdir())
    _row_group.cache_clear()
    _open.cache_clear()
    shards[2].unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        images.image(22)
    whole = shards[0].read_bytes()
    shards[0].write_bytes(whole[:4] + b"\xff" * 500 + whole[504:])  # the pages of the first row group
    with pytest.raises(UnreadableImage):
        images.image(0)
    shards[1].write_bytes(b"words")
    with pytest.raises(UnreadableImage, match=r"[Pp]arquet"):
        images.image(10)


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint8(), pa.int64(), pa.uint64()])
def test_labels_of_every_kind_of_integer_with_and_without_gaps(tmp_path, kind):
    for name, labels in (("whole", [1, 0]), ("gaps", [1, None])):
        table = pa.table({"image": [{"bytes": b"x"}, {"bytes": b"y"}], "label": pa.array(labels, kind)})
        parquet.write_table(table, tmp_path / f"{name}.parquet")
    assert [open_images(tmp_path / "whole.parquet").label(index) for index in (0, 1)] == [1, 0]
    assert open_images(tmp_path / "gaps.parquet").classes == []


def test_labels_may_be_missing(tmp_path, samples):
    rows = [{"image": {"bytes": data, "path": path}} for path, data, _ in samples]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    images = open_images(tmp_path)
    assert (images.classes, images.label(0), len(images)) == ([], None, 23)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"img": [b"x"]}, r"x\.parquet is not laid out .*: it needs a column `image` with `bytes` and has .*img"),
        ({"image": [b"x"]}, r"it needs a column `image` with `bytes` and has .*image"),
        ({"image": [{"bytes": b"x"}], "label": ["cat"]}, r"its labels are no numbers but string"),
        ({"image": [{"bytes": b"x"}], "label": [2**31]}, r"its labels lie in 2147483648 \.\.\. 2147483648, not in 0 \.\.\."),
        ({"image": [{"bytes": b"x"}], "label": pa.array([2**63], pa.uint64())}, r"cannot be read as parquet: Integer value"),
    ],
)
def test_other_columns_are_named(tmp_path, table, words):
    parquet.write_table(pa.table(table), tmp_path / "x.parquet")
    with pytest.raises(ValueError, match=words):
        open_images(tmp_path)


def test_what_is_no_parquet_file_is_named(tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"words")
    with pytest.raises(ValueError, match=r"x\.parquet cannot be read as parquet: "):
        open_images(tmp_path)


def test_pyarrow_missing_is_one_line(tmp_path, samples, write_parquet, monkeypatch):
    write_parquet(samples, tmp_path)
    for name in [name for name in sys.modules if name.startswith("pyarrow")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"read by pyarrow: pip install 'evomask\[parquet\]'"):
        open_images(tmp_path)
