"""The compiled trees are those of the reference in hierarchy.py, field by field, whatever the matrices look like."""

from dataclasses import fields

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomask.masking import hierarchy
from evomask.masking.hierarchy import Hierarchy, Linkage, build_hierarchy

pytest.importorskip("numba")


def assert_same_trees(affinity: Tensor, linkage: Linkage) -> None:
    found, expected = (build_hierarchy(affinity, linkage, backend=backend) for backend in ("numba", "torch"))
    for field in fields(Hierarchy):
        assert torch.equal(getattr(found, field.name), getattr(expected, field.name)), field.name


@st.composite
def affinities(draw) -> Tensor:
    """Smooth ones, ones full of ties, negative ones, chains; not symmetric; in all precisions that models compute in."""
    images, patches = draw(st.integers(1, 5)), draw(st.integers(2, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    affinity = torch.randn(images, patches, patches, generator=generator)
    kind = draw(st.sampled_from(["normal", "softmax", "few values", "signed zeros", "chain"]))
    if kind == "softmax":
        affinity = affinity.softmax(dim=-1)
    elif kind == "few values":
        affinity = affinity.mul(1.5).round()
    elif kind == "signed zeros":
        affinity = affinity.sign() * 0.0
    elif kind == "chain":
        affinity = affinity / 100 + torch.arange(patches) + torch.arange(patches)[:, None]
    return affinity.to(draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16])))


@settings(max_examples=300, derandomize=True)
@given(affinity=affinities(), linkage=st.sampled_from(["weighted", "average"]))
def test_trees_are_the_references(affinity, linkage):
    before = affinity.clone()
    assert_same_trees(affinity, linkage)
    assert torch.equal(affinity, before)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("linkage", ["weighted", "average"])
def test_trees_do_not_depend_on_threads_or_neighbours(threads, linkage):
    affinity = torch.rand(7, 196, 196, generator=torch.Generator().manual_seed(0))
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert_same_trees(affinity, linkage)
        assert_same_trees(affinity[:, :50, :50], linkage)  # not contiguous
        alone, among_others = (build_hierarchy(each, linkage, backend="numba").parent for each in (affinity[4:5], affinity))
        assert torch.equal(alone[0], among_others[4])
    finally:
        torch.set_num_threads(threads_before)


@pytest.mark.parametrize("place", [(0, 0, 0), (2, 3, 1), (2, 1, 3)])
def test_what_is_not_finite_is_found_anywhere(place):
    affinity = torch.rand(3, 5, 5)
    affinity[place] = torch.inf
    with pytest.raises(hierarchy.NonFiniteAffinity):
        build_hierarchy(affinity)


def test_an_affinity_with_a_gradient_is_taken():
    assert build_hierarchy(torch.rand(2, 4, 4, requires_grad=True)).parent.shape == (2, 7)


def test_without_the_compiler_the_reference_says_what_is_not_finite():
    with pytest.raises(ValueError, match="the model has diverged"):
        build_hierarchy(torch.full((1, 3, 3), torch.nan), backend="torch")
