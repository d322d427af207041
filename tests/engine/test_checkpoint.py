"""Checkpoints are whole or not there, few, and never run code."""

import os
import pickle
from pathlib import Path

import pytest
import torch

from evomask.engine import checkpoint
from evomask.engine.checkpoint import checkpoints, load_checkpoint, save_checkpoint


def state(step: int) -> dict:
    return {
        "step": step,
        "model": {"weight": torch.full((3,), float(step))},
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}},
    }


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, 100, state(100), keep=2)
    assert path == tmp_path / "checkpoints" / "step_00000100"
    loaded = load_checkpoint(tmp_path)
    assert loaded["step"] == 100
    assert torch.equal(loaded["model"]["weight"], torch.full((3,), 100.0))
    assert torch.equal(loaded["optimizer"]["state"][0]["step"], torch.tensor(1.0))


def test_the_last_few_are_kept_and_the_newest_is_loaded(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        save_checkpoint(tmp_path, step, state(step), keep=3)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000009", "step_00000010", "step_00000011"]
    assert load_checkpoint(tmp_path)["step"] == 11


def test_steps_are_ordered_as_numbers_also_past_eight_digits(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 5):
        save_checkpoint(tmp_path, step, state(step), keep=5)
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000005", "step_99999999", "step_100000000"]


def test_saving_at_the_same_step_replaces(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 5, state(4), keep=2)
    save_checkpoint(tmp_path, 5, state(5), keep=2)
    assert names(tmp_path) == ["step_00000005"]
    assert load_checkpoint(tmp_path)["step"] == 5


def test_a_save_that_dies_half_way_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, 1, state(1), keep=1)

    def die_half_way(_: object, file) -> None:
        file.write(b"half a checkpoint")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", die_half_way)
        with pytest.raises(OSError, match="No space left"):
            save_checkpoint(tmp_path, 2, state(2), keep=1)

    assert (tmp_path / "checkpoints" / "step_00000002.unfinished").is_dir()
    assert [path.name for path in checkpoints(tmp_path)] == ["step_00000001"], "half a checkpoint is none"
    assert load_checkpoint(tmp_path)["step"] == 1
    save_checkpoint(tmp_path, 3, state(3), keep=1)
    assert names(tmp_path) == ["step_00000003"], "the half is cleared away by the next save"


def test_no_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"has no checkpoint yet: `evomask resume {tmp_path}`"):
        load_checkpoint(tmp_path)
    (tmp_path / "checkpoints" / "step_00000001.unfinished").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ["cut short", "empty", "missing"])
def test_a_damaged_newest_checkpoint_says_what_to_do(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, 1, state(1), keep=2)
    newest = save_checkpoint(tmp_path, 2, state(2), keep=2)
    file = newest / "state.pt"
    if damage == "missing":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2 if damage == "cut short" else 0)
    with pytest.raises(ValueError, match=r"step_00000002 cannot be read .*delete it") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


class Malicious:
    """Its unpickling makes a folder: what could be done so, could be worse."""

    def __init__(self, target: str):
        self._target = target

    def __reduce__(self):
        return os.mkdir, (self._target,)


@pytest.mark.parametrize("format", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, format: str) -> None:
    trap = tmp_path / "sprung"
    folder = save_checkpoint(tmp_path, 1, state(1), keep=1)
    payload = {"step": 1, "model": Malicious(str(trap))}
    if format == "torch":
        torch.save(payload, folder / "state.pt")
    else:
        (folder / "state.pt").write_bytes(pickle.dumps(payload))
    with pytest.raises(ValueError, match="cannot be read"):
        load_checkpoint(tmp_path)
    assert not trap.exists()
    # The trap is real: an unpickler that runs code springs it.
    torch.load(folder / "state.pt", weights_only=False) if format == "torch" else pickle.loads(pickle.dumps(payload))
    assert trap.exists()


def test_tensors_come_back_on_the_cpu_in_their_type(tmp_path: Path) -> None:
    values = {"half": torch.randn(4).bfloat16(), "long": torch.arange(3), "scalar": torch.tensor(2.5, dtype=torch.float64)}
    save_checkpoint(tmp_path, 1, values, keep=1)
    loaded = load_checkpoint(tmp_path)
    for name, tensor in values.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
