"""The trees of the Triton kernels are those of the reference in hierarchy.py, field by field, whatever the matrices look like.

Without a GPU they run in Triton's interpreter. Whether Triton interprets is settled when it is imported, as other packages do,
so it does so in a process of its own.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from evomask.masking import EvolvedMasking, Hierarchy, build_hierarchy

pytest.importorskip("triton")

from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from evomask.masking.kernels import triton as kernels

BOTH_LINKAGES = pytest.mark.parametrize("linkage", ["weighted", "average"])
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
Build = Callable[[Tensor, str], Hierarchy]

INTERPRETER = """
import pickle, sys
from evomask.masking import build_hierarchy
while True:
    affinity, linkage = pickle.load(sys.stdin.buffer)
    pickle.dump(build_hierarchy(affinity, linkage, backend="triton"), sys.stdout.buffer)
    sys.stdout.buffer.flush()
"""


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Build]:
    """`build_hierarchy` in Triton's interpreter."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command, pipe = [sys.executable, "-c", INTERPRETER], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment) as process:
        questions, answers = process.stdin, process.stdout
        assert questions is not None and answers is not None

        def build(affinity: Tensor, linkage: str) -> Hierarchy:
            pickle.dump((affinity, linkage), questions)
            questions.flush()
            return pickle.load(answers)

        yield build
        process.kill()


def random_affinity(kind: str, images: int, patches: int, seed: int = 0) -> Tensor:
    """(images, N, N) float32, not symmetric."""
    affinity = torch.randn(images, patches, patches, generator=torch.Generator().manual_seed(seed))
    place = torch.arange(patches)
    return {
        "normal": affinity,
        "softmax": affinity.mul(2).softmax(dim=-1),
        "popular keys": (affinity / 3 + affinity[:, :1] * 2).softmax(dim=-1),
        "chain": affinity / 100 + place + place[:, None],
        "equal": affinity[:, :1, :1].double().expand_as(affinity) / 3,  # rounding may lift a mean of these above them
        "blocks": (place // 3 == place[:, None] // 3).float().expand(images, -1, -1),
        "few values": affinity.mul(1.5).round(),
        "signed zeros": affinity.sign() * 0.0,
        "equal upper halves": 1 + affinity.double() * 1e-9,  # the first 20 bits behind the point are equal in float64
    }[kind]


def assert_same_trees(found: Hierarchy, expected: Hierarchy) -> None:
    for field in fields(Hierarchy):
        one, other = getattr(found, field.name).cpu(), getattr(expected, field.name).cpu()
        assert one.dtype == other.dtype
        assert torch.equal(one, other), field.name


def assert_tree(hierarchy: Hierarchy, image: int) -> None:
    """Every node but the root is the child of a later merge, and of one only."""
    patches, children = hierarchy.patches, hierarchy.children[image]
    assert sorted(children.flatten().tolist()) == list(range(2 * patches - 2))
    assert (children < torch.arange(patches, 2 * patches - 1).view(-1, 1)).all()
    assert hierarchy.size[image, -1] == patches


@BOTH_LINKAGES
@pytest.mark.parametrize(
    ("kind", "images", "patches"),
    [
        *[("normal", 3, patches) for patches in (2, 3, 7, 16)],
        ("softmax", 1, 49),
        ("softmax", 1, 196),
        ("popular keys", 2, 33),
        ("chain", 1, 40),
        ("equal", 5, 21),
        *[(kind, 2, 21) for kind in ("blocks", "few values", "signed zeros", "equal upper halves")],
    ],
)
def test_trees_are_the_references(interpreted, kind, images, patches, linkage):
    affinity = random_affinity(kind, images, patches)
    assert_same_trees(interpreted(affinity, linkage), build_hierarchy(affinity, linkage, backend="torch"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_precision_is_taken(interpreted, dtype):
    affinity = random_affinity("softmax", 2, 12).to(dtype)
    assert_same_trees(interpreted(affinity, "weighted"), build_hierarchy(affinity, backend="torch"))


@pytest.mark.parametrize(
    "view",
    [
        lambda affinity: affinity[1:, 2:11, 1:10],
        lambda affinity: affinity.mT,
        lambda affinity: affinity.permute(1, 2, 0)[:, :4, :4],
        lambda affinity: affinity[:, ::2, ::2],
        lambda affinity: affinity[:1].expand(3, -1, -1),
        lambda affinity: affinity[:0],
    ],
)
def test_affinities_need_not_be_contiguous(interpreted, view):
    affinity = view(random_affinity("normal", 4, 12))
    assert_same_trees(interpreted(affinity, "weighted"), build_hierarchy(affinity, backend="torch"))


@BOTH_LINKAGES
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_in_that_images_similarity_alone(interpreted, value, linkage):
    affinity = random_affinity("softmax", 4, 6)
    affinity[0] = value
    affinity[1, 2, 3] = value
    affinity[2, 5, 5] = value
    found, expected = interpreted(affinity, linkage), build_hierarchy(affinity[3:], linkage, backend="torch")
    assert found.similarity[:3].isnan().all()
    for image in range(3):
        assert_tree(found, image)
    assert_same_trees(Hierarchy(*(getattr(found, field.name)[3:] for field in fields(Hierarchy))), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_compiles_for_a_gpu_that_is_not_here(monkeypatch, dtype):
    """As for an H100: nothing spilled, no multiplication fused with an addition, no layout changed on the way."""
    compiled, run = {}, JITFunction.run

    def compile_only(kernel, *arguments, grid, warmup, **options):
        result = run(kernel, *arguments, grid=grid, warmup=True, **options)
        assert result is not None
        compiled[kernel.__name__] = result.asm

    gpu = SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: "nowhere",  # what is compiled is kept by device, and is not for one that may be here
        get_current_stream=lambda device: 0,
    )
    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setattr(driver, "_active", gpu)
    kernels.build_trees(torch.rand(2, 196, 196, dtype=dtype), "average")
    assert compiled.keys() == {"_symmetrise", "_follow_chains", "_number"}
    for assembly in compiled.values():
        assert "st.global" in assembly["ptx"]
        assert ".local" not in assembly["ptx"]
        assert "fma" not in assembly["ptx"]
    assert "redux.sync.max.s32" in compiled["_follow_chains"]["ptx"]
    assert "convert_layout" not in compiled["_follow_chains"]["ttgir"]


# On a GPU


@pytest.mark.gpu
@needs_gpu
@BOTH_LINKAGES
@pytest.mark.parametrize("patches", [2, 3, 49, 196, 256, 257, 576, 1024])
def test_compiled_trees_are_the_references(patches, linkage):
    for kind in ("normal", "softmax", "popular keys", "chain", "equal", "few values", "equal upper halves"):
        affinity = random_affinity(kind, 3, patches)
        assert_same_trees(build_hierarchy(affinity.cuda(), linkage, "triton"), build_hierarchy(affinity, linkage))


@pytest.mark.gpu
@needs_gpu
@BOTH_LINKAGES
def test_compiled_trees_of_a_batch_are_the_references_every_time(linkage):
    affinity = torch.cat([random_affinity("softmax", 192, 196), random_affinity("popular keys", 64, 196, seed=1)])
    expected = build_hierarchy(affinity, linkage)
    for _ in range(10):
        assert_same_trees(build_hierarchy(affinity.cuda(), linkage), expected)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_what_is_not_finite_on_a_gpu_shows_in_the_similarity(backend):
    affinity = random_affinity("softmax", 3, 10)
    affinity[1, 2, 3] = torch.nan
    found = build_hierarchy(affinity.cuda(), backend=backend)
    assert found.similarity.isnan().any(dim=1).tolist() == [False, True, False]
    assert_tree(found, 1)


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("affinity", ["attention", "popularity", "profile"])
def test_masking_never_waits_for_the_gpu(affinity):
    masking = EvolvedMasking(affinity=affinity)
    attention, noise = random_affinity("softmax", 8, 196).cuda(), torch.rand(16, 196).cuda()
    masking(noise, grid=(14, 14), affinity=attention)  # compiled kernels are loaded in the first call, which waits
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        mask = masking(noise, grid=(14, 14), progress=0.5, affinity=attention)
        keep, masked = mask.keep_indices, mask.masked_indices
        assert mask.hierarchy is not None
        groups = mask.hierarchy.cut(2)
    finally:
        torch.cuda.set_sync_debug_mode(before)
    assert keep.shape == (16, 49) and masked.shape == (16, 147) and groups.shape == (16, 196)
