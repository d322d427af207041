"""Checkpoints are whole or not there, few, checked when they are read, and never run code."""

import errno
import json
import logging
import os
import pickle
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

from evomask.engine import checkpoint
from evomask.engine.checkpoint import (
    CheckpointWriter,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    restore,
    write_checkpoint,
)

CPU = torch.device("cpu")
SHARD = "shard-00001-model-00001-of-00001.safetensors"


def state(step: int) -> dict[str, torch.Tensor]:
    return {
        "model.head.weight": torch.full((3,), float(step)),
        "optimizer.head.weight.exp_avg": torch.full((3,), -float(step)),
        "optimizer.head.weight.step": torch.tensor(float(step)),
    }


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 100, state(100), keep=2)
    assert path == tmp_path / "checkpoints" / "step_00000100"
    weights = torch.full((3,), 100.0)
    moments = {"exp_avg": -weights, "step": torch.tensor(100.0)}
    expected = {"step": 100, "model": {"head.weight": weights}, "optimizer": {"head.weight": moments}}
    torch.testing.assert_close(load_checkpoint(tmp_path), expected, rtol=0, atol=0)


def test_the_last_few_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        write_checkpoint(tmp_path, step, state(step), keep=3)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000009", "step_00000010", "step_00000011"]
    assert load_checkpoint(tmp_path)["step"] == 11


def test_steps_are_ordered_as_numbers_also_past_eight_digits(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 5):
        write_checkpoint(tmp_path, step, state(step), keep=5)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000005", "step_99999999", "step_100000000"]


def test_saving_at_the_same_step_replaces(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 5, state(4), keep=2)
    write_checkpoint(tmp_path, 5, state(5), keep=2)
    assert names(tmp_path) == ["step_00000005"]
    assert load_checkpoint(tmp_path)["model"]["head.weight"][0] == 5


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses to write more, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_that_fails_half_way_leaves_the_one_before(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, 1, state(1), keep=1)
    with files_no_larger_than(100), pytest.raises(ValueError, match="step 2 cannot be written") as caught:
        write_checkpoint(tmp_path, 2, state(2), keep=1)
    assert f"({os.strerror(errno.EFBIG)}); step_00000001 is whole: make room, and `evomask resume {tmp_path}`" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
    assert (tmp_path / "checkpoints" / "step_00000002.unfinished").is_dir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000001"], "half a checkpoint is none"
    assert load_checkpoint(tmp_path)["step"] == 1
    write_checkpoint(tmp_path, 3, state(3), keep=1)
    assert names(tmp_path) == ["step_00000003"], "the half is cleared away by the next save"


def test_no_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"has no checkpoint yet: `evomask resume {tmp_path}`"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "step_00000001.unfinished").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_checkpoint(tmp_path)


def damage(folder: Path, kind: str) -> str:
    """Damage a checkpoint; returns what is to be said of it."""
    shard = folder / SHARD
    size = shard.stat().st_size
    if kind == "missing":
        shard.unlink()
        return f"{SHARD} is missing"
    if kind == "no manifest":
        (folder / "manifest.json").unlink()
        return "manifest.json is missing"
    if kind == "manifest cut short":
        os.truncate(folder / "manifest.json", 20)
        return "manifest.json cannot be read"
    if kind == "a bit turned":
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
        return f"{SHARD} has changed since it was written"
    os.truncate(shard, size // 2)
    return f"{SHARD} has {size // 2} bytes instead of {size}"


KINDS = ["cut short", "missing", "a bit turned", "no manifest", "manifest cut short"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_checkpoint(tmp_path, 1, state(1), keep=2)
    said = damage(write_checkpoint(tmp_path, 2, state(2), keep=2), kind)
    with caplog.at_level(logging.WARNING, "evomask"):
        assert load_checkpoint(tmp_path)["step"] == 1
    newest = tmp_path / "checkpoints/step_00000002"
    messages = [record.getMessage() for record in caplog.records if record.name == "evomask"]
    assert messages == [f"{newest} is damaged ({said}): step_00000001 is used"]
    assert newest.is_dir(), "whoever only reads changes nothing"


def test_no_whole_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    for step in (1, 2):
        damage(write_checkpoint(tmp_path, step, state(step), keep=2), "cut short")
    with pytest.raises(ValueError, match=r"no checkpoint of .* is whole \(step_00000002: .*; step_00000001: .*\)") as caught:
        newest_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def trained(seed: int, steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(steps):
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


@pytest.mark.parametrize("beside", [None, CPU])
def test_a_model_and_its_optimiser_go_on_as_they_were(tmp_path: Path, beside: torch.device | None) -> None:
    model, optimizer = trained(0, 3)
    writer = CheckpointWriter(tmp_path, 2, model, optimizer, beside)
    writer.save(3)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.zero_()  # training goes on while it is being written
    writer.wait()
    again, fresh = trained(1, 0)
    assert restore(tmp_path, again, fresh) == 3
    torch.testing.assert_close(dict(again.state_dict()), expected, rtol=0, atol=0)
    assert fresh.state_dict()["state"].keys() == optimizer.state_dict()["state"].keys()
    torch.testing.assert_close(fresh.state_dict()["state"], optimizer.state_dict()["state"], rtol=0, atol=0)


def test_what_fails_beside_is_said_at_the_next_save(tmp_path: Path) -> None:
    model, optimizer = trained(0, 1)
    writer = CheckpointWriter(tmp_path, 2, model, optimizer, beside=CPU)
    with files_no_larger_than(100):
        writer.save(1)
        with pytest.raises(ValueError, match="step 1 cannot be written"):
            writer.save(2)


def test_what_is_written_beside_stays_on_the_device_of_its_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a GPU: a thread has the first one of the machine until it is told of another."""
    told: list[tuple[str, int]] = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: told.append((threading.current_thread().name, device)))
    writer = CheckpointWriter(tmp_path, 1, *trained(0, 1), torch.device("cuda:3"))
    writer.save(1)
    writer.wait()
    assert told == [("checkpoint_0", 3)]


def test_damaged_checkpoints_are_set_aside_by_a_run_that_goes_on(tmp_path: Path) -> None:
    model, optimizer = trained(0, 3)
    writer = CheckpointWriter(tmp_path, 1, model, optimizer, beside=None)
    writer.save(3)
    whole = checkpoints(tmp_path)[0].rename(tmp_path / "kept")
    writer.save(9)
    whole.rename(tmp_path / "checkpoints/step_00000003")
    damage(tmp_path / "checkpoints/step_00000009", "a bit turned")
    assert restore(tmp_path, *trained(1, 0)) == 3
    assert names(tmp_path) == ["step_00000003", "step_00000009.damaged"]
    writer.save(4)
    assert names(tmp_path) == ["step_00000004", "step_00000009.damaged"], "it does not count among those that are kept"


def test_a_checkpoint_of_another_model_is_a_clear_error(tmp_path: Path) -> None:
    CheckpointWriter(tmp_path, 1, *trained(0, 1), beside=None).save(1)
    other = nn.Linear(4, 3)
    with pytest.raises(ValueError, match="step_00000001 does not fit the model of this run") as caught:
        restore(tmp_path, other, torch.optim.AdamW(other.parameters()))
    assert "\n" not in str(caught.value)


def test_a_manifest_says_what_is_there(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, 7, state(7), keep=1)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["step"], manifest["processes"]) == (7, 1)
    assert list(manifest["files"]) == [SHARD]


class Malicious:
    """Its unpickling makes a folder: what could be done so, could be worse."""

    def __init__(self, target: str):
        self._target = target

    def __reduce__(self):
        return os.mkdir, (self._target,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"
    folder = write_checkpoint(tmp_path, 1, state(1), keep=1)
    payload = pickle.dumps(Malicious(str(trap)))
    # Everywhere where a reader of checkpoints might unpickle, with the checksums that belong to it.
    for name in (SHARD, ".metadata", "__0_0.distcp"):
        (folder / name).write_bytes(payload)
    entry = {"bytes": len(payload), "crc32": checkpoint._checksum(folder / SHARD)}
    (folder / "manifest.json").write_text(json.dumps({"step": 1, "files": {SHARD: entry}}))
    with pytest.raises(ValueError, match="is no whole checkpoint"):
        load_checkpoint(tmp_path)
    assert not trap.exists()
    pickle.loads(payload)  # the trap is real: an unpickler springs it
    assert trap.exists()


def test_tensors_come_back_on_the_cpu_in_their_type(tmp_path: Path) -> None:
    values = {"half": torch.randn(4).bfloat16(), "long": torch.arange(3), "scalar": torch.tensor(2.5, dtype=torch.float64)}
    write_checkpoint(tmp_path, 1, {f"model.{name}": tensor for name, tensor in values.items()}, keep=1)
    loaded = load_checkpoint(tmp_path)["model"]
    for name, tensor in values.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
