"""Which process and which device."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed

from evomask.engine.distributed import pick_device, rank, world_size


def test_a_single_process_is_rank_0_of_1() -> None:
    assert (rank(), world_size()) == (0, 1)


@pytest.fixture
def group_of_one(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_a_process_group_is_asked_for_both(group_of_one: None, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (rank(), world_size()) == (0, 1)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    assert (rank(), world_size()) == (3, 4)


def test_the_device_named_is_the_device() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("available", [True, False])
def test_auto_takes_a_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch, available: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)  # this machine need not have one
    assert pick_device("auto").type == ("cuda" if available else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x"])
def test_a_device_that_is_not_there_is_a_clear_error(name: str) -> None:
    with pytest.raises(ValueError, match=rf"device '{name}' cannot be used here \(.*\): try auto") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)
