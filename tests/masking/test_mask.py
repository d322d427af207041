import ast
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import evomask.masking
from evomask.masking import STRATEGIES, Mask, MaskingStrategy
from evomask.masking.mask import check_ratio, masked_count

MASKING = Path(evomask.masking.__file__).parent
ALL = pytest.mark.parametrize("name", STRATEGIES)


def _rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, derandomize=True)
@given(images=st.integers(1, 4), patches=st.integers(2, 40), seed=st.integers(0, 2**31), data=st.data())
def test_highest_hides_the_highest_and_indices_are_a_partition(images, patches, seed, data):
    count = data.draw(st.integers(1, patches - 1))
    score = _rand(images, patches, seed=seed).mul(6).floor()  # with ties
    mask = Mask.highest(score, count)
    assert mask.masked.dtype == torch.bool
    assert mask.masked.shape == (images, patches)
    assert mask.count == count
    for image in range(images):
        # Of equal scores the later patch.
        ranked = sorted(range(patches), key=lambda patch: (score[image, patch].item(), patch))
        hidden, kept = mask.masked_indices[image].tolist(), mask.keep_indices[image].tolist()
        assert hidden == sorted(ranked[patches - count :])
        assert kept == sorted(ranked[: patches - count])
        assert [patch for patch in range(patches) if mask.masked[image, patch]] == hidden


def test_indices_of_a_mask_by_hand():
    mask = Mask(torch.tensor([[True, False, True, False, True], [False, True, True, True, False]]), count=3)
    assert mask.masked_indices.tolist() == [[0, 2, 4], [1, 2, 3]]
    assert mask.keep_indices.tolist() == [[1, 3], [0, 4]]
    assert mask.keep_indices.dtype == mask.masked_indices.dtype == torch.long


def test_the_count_is_truncated():
    assert masked_count(torch.zeros(1, 196), (14, 14), 0.75) == 147
    assert masked_count(torch.zeros(1, 49), (7, 7), 0.75) == 36
    assert masked_count(torch.zeros(1, 15), (3, 5), 0.5) == 7


def test_what_a_user_can_get_wrong_is_named():
    for ratio in (0.0, 1.0, -0.1, 75, float("nan")):
        with pytest.raises(ValueError, match="strictly between 0 and 1, not"):
            check_ratio(ratio)
    with pytest.raises(ValueError, match=r"noise must be \(images, 14 \* 14 = 196\), not \(2, 195\)"):
        masked_count(torch.zeros(2, 195), (14, 14), 0.75)
    with pytest.raises(ValueError, match=r"noise must be \(images, 14 \* 14 = 196\), not \(196,\)"):
        masked_count(torch.zeros(196), (14, 14), 0.75)
    with pytest.raises(ValueError, match="hides none of 4 patches: raise it or make the patches smaller"):
        masked_count(torch.zeros(1, 4), (2, 2), 0.2)


@ALL
def test_every_strategy_keeps_to_the_protocol(name):
    strategy: MaskingStrategy = STRATEGIES[name]()
    assert inspect.signature(type(strategy).__call__) == inspect.signature(MaskingStrategy.__call__)
    assert strategy.needs_affinity is (name == "evolved")
    assert hash(strategy) == hash(STRATEGIES[name]())
    for ratio in (0, 1):
        with pytest.raises(ValueError, match="strictly between 0 and 1"):
            STRATEGIES[name](ratio=ratio)


@ALL
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_strategy_is_a_pure_function(name, dtype):
    strategy, grid = STRATEGIES[name](), (8, 12)
    arguments = {"noise": _rand(5, 96).to(dtype), "affinity": _rand(5, 96, 96).to(dtype)}
    before = {key: value.clone() for key, value in arguments.items()}
    state = torch.get_rng_state()

    mask = strategy(grid=grid, progress=0.4, **arguments)

    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(arguments[key], before[key]) for key in before)
    assert torch.equal(strategy(grid=grid, progress=0.4, **arguments).masked, mask.masked)
    assert (mask.masked.sum(dim=1) == mask.count).all()
    assert not torch.equal(mask.masked[0], mask.masked[1])
    # An image's mask does not depend on its neighbours in the batch.
    alone = strategy(grid=grid, progress=0.4, **{key: value[3:4] for key, value in arguments.items()})
    assert torch.equal(alone.masked, mask.masked[3:4])
    other_noise = strategy(_rand(5, 96, seed=1), grid, 0.4, arguments["affinity"])
    assert not torch.equal(other_noise.masked, mask.masked)


def test_masking_imports_torch_and_nothing_of_evomask_outside_itself():
    for file in MASKING.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = ["evomask.masking" if node.level else node.module or ""]
            else:
                continue
            for module in modules:
                known = {"torch", "numpy", "numba", "llvmlite", "triton", *sys.stdlib_module_names}
                assert module.split(".")[0] in known or f"{module}.".startswith("evomask.masking."), f"{file}: {module}"


def test_masking_can_be_lifted_out_whole(tmp_path):
    shutil.copytree(MASKING, tmp_path / "evomask" / "masking")
    (tmp_path / "evomask" / "__init__.py").touch()
    program = """
import sys, torch
from evomask.masking import EvolvedMasking
mask = EvolvedMasking()(torch.rand(2, 6), grid=(2, 3), progress=0.5, affinity=torch.rand(2, 6, 6))
assert mask.masked.sum(dim=1).tolist() == [4, 4]
loaded = {name.partition(".")[0] for name in sys.modules}
assert not loaded & {"timm", "torchvision", "transformers"}, loaded
assert not [name for name in sys.modules if name.startswith("evomask.") and not name.startswith("evomask.masking")]
print(sys.modules["evomask.masking"].__file__)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)
