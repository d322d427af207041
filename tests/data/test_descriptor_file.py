"""Descriptors on a disk are what NumPy reads, and are read a few rows at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evomask.data.descriptor_file import DescriptorFile, DescriptorWriter, Precision


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_rows_written_in_any_order_are_numpys(tmp_path: Path, precision: Precision) -> None:
    rows = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    writer = DescriptorWriter(tmp_path / "new" / "d.npy", 7, 5, precision)
    writer.write(4, rows[4:])
    writer.write(0, rows[:4])
    stored = rows.numpy().astype(precision)
    assert np.array_equal(np.load(tmp_path / "new" / "d.npy"), stored)
    file = DescriptorFile(tmp_path / "new" / "d.npy")
    assert (len(file), file.width) == (7, 5)
    assert np.array_equal(file.rows(2, 5).numpy(), stored[2:5].astype(np.float32))
    assert file.rows(5, 100).shape == (2, 5)
    assert file.rows(9, 100).shape == (0, 5)


def test_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        DescriptorFile(tmp_path / "d.npy")
    (tmp_path / "d.npy").write_text("something else")
    with pytest.raises(ValueError, match=r"is no \.npy file"):
        DescriptorFile(tmp_path / "d.npy")
    for array in (np.zeros(3, np.float32), np.zeros((3, 2)), np.zeros((3, 2), np.float32, order="F")):
        np.save(tmp_path / "d.npy", array)
        with pytest.raises(ValueError, match="must hold a matrix of float16 or float32"):
            DescriptorFile(tmp_path / "d.npy")
    np.save(tmp_path / "d.npy", np.zeros((3, 2), np.float32))
    data = (tmp_path / "d.npy").read_bytes()
    (tmp_path / "d.npy").write_bytes(data[:-1])
    with pytest.raises(ValueError, match="cut short"):
        DescriptorFile(tmp_path / "d.npy")
