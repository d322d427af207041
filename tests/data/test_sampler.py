import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evomask.data.sampler import StepSampler, sample_seed


@st.composite
def settings(draw):
    share, micro, world = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    batch = share * micro * world
    return {"length": draw(st.integers(batch, 6 * batch)), "batch": batch, "micro": micro, "world": world}


@given(settings(), st.integers(0, 2**40))
def test_an_epoch_shows_each_image_at_most_once(s, seed):
    sampler = StepSampler(s["length"], s["batch"], seed, range(0))
    steps = sampler.steps_per_epoch
    assert steps == s["length"] // s["batch"]
    for epoch in (0, 3):
        seen = [index for step in range(epoch * steps, (epoch + 1) * steps) for index in sampler.indices(step)]
        assert len(set(seen)) == len(seen) == steps * s["batch"]
        assert set(seen) <= set(range(s["length"]))


@given(settings(), st.integers(0, 2**40))
def test_ranks_and_micro_batches_share_out_the_same_batch(s, seed):
    whole = StepSampler(s["length"], s["batch"], seed, range(5))
    alone = [list(keys) for keys in whole]
    ranks = [
        list(StepSampler(s["length"], s["batch"], seed, range(5), rank, s["world"], s["micro"])) for rank in range(s["world"])
    ]
    for step in range(5):
        parts = [key for rank in ranks for part in rank[step * s["micro"] : (step + 1) * s["micro"]] for key in part]
        assert parts == alone[step]
    assert {len(part) for rank in ranks for part in rank} == {s["batch"] // s["world"] // s["micro"]}


@given(settings(), st.integers(0, 12))
def test_beginning_later_gives_the_same_rest(s, first):
    whole = list(StepSampler(s["length"], s["batch"], 7, range(12), micro_batches=s["micro"]))
    rest = StepSampler(s["length"], s["batch"], 7, range(first, 12), micro_batches=s["micro"])
    assert list(rest) == whole[first * s["micro"] :]
    assert len(rest) == (12 - first) * s["micro"]


def test_epochs_and_seeds_have_their_own_orders():
    sampler = StepSampler(100, 100, 0, range(0))
    assert sampler.indices(0) != sampler.indices(1) != StepSampler(100, 100, 1, range(0)).indices(1)
    assert next(iter(StepSampler(100, 50, 0, range(5, 6))))[0][0] == 2


def test_what_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match=r"only 3 images for a batch of 8: lower the batch size"):
        StepSampler(3, 8, 0, range(1))
    with pytest.raises(ValueError, match=r"batch of 8 .* 3 micro-batches"):
        StepSampler(30, 8, 0, range(1), micro_batches=3)


def test_seeds_are_well_mixed():
    seeds = {sample_seed(seed, epoch, index) for seed in range(8) for epoch in range(8) for index in range(64)}
    assert len(seeds) == 8 * 8 * 64
    assert all(0 <= seed < 2**63 for seed in seeds)
    ones = sum(bin(seed).count("1") for seed in seeds) / len(seeds)
    assert abs(ones - 31.5) < 0.5
    assert sample_seed(1, 2) != sample_seed(2, 1)


def test_going_to_and_fro_between_two_epochs_makes_each_order_once(monkeypatch):
    made, default_rng = [], np.random.default_rng
    monkeypatch.setattr("numpy.random.default_rng", lambda seed: made.append(seed) or default_rng(seed))
    sampler = StepSampler(20, 4, 7, range(0))
    expected = [StepSampler(20, 4, 7, range(0)).indices(step) for step in range(30)]
    made.clear()
    for step in (4, 5, 4, 6, 3, 9, 10, 9, 11):
        assert sampler.indices(step) == expected[step]
    assert made == [sample_seed(7, epoch) for epoch in (0, 1, 2)]
    assert sampler.indices(29) == expected[29]
    assert sampler.indices(0) == expected[0]
    assert len(sampler._orders) == 2
