import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from evomask.masking import build_hierarchy
from evomask.masking.affinity import (
    AFFINITIES,
    attention_profile_similarity,
    either_attention,
    mutual_attention,
    popularity_corrected_attention,
    symmetric_attention,
)


@pytest.fixture
def attention_BNN():
    return torch.randn(3, 20, 20, generator=torch.Generator().manual_seed(0)).mul(2).softmax(dim=-1)


def test_symmetric_attention_is_the_mean_of_both_directions():
    attention = torch.tensor([[[0.5, 0.25, 0.25], [0.75, 0.0, 0.25], [0.5, 0.5, 0.0]]])
    expected = torch.tensor([[[0.5, 0.5, 0.375], [0.5, 0.0, 0.375], [0.375, 0.375, 0.0]]])
    assert torch.equal(symmetric_attention(attention), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_symmetric_input_comes_back_bit_for_bit(attention_BNN, dtype):
    affinity = symmetric_attention(attention_BNN.to(dtype))
    assert torch.equal(symmetric_attention(affinity), affinity)


def test_popularity_is_the_mean_of_a_column():
    attention = torch.tensor([[[0.25, 0.75], [0.75, 0.25]]]) + torch.tensor([0.0, 8.0])
    assert torch.equal(popularity_corrected_attention(attention), torch.tensor([[[-0.25, 0.25], [0.25, -0.25]]]).double())


def test_what_all_queries_give_to_a_key_does_not_count(attention_BNN):
    popular = attention_BNN + torch.linspace(0, 5, 20)
    for affinity in (popularity_corrected_attention, attention_profile_similarity):
        torch.testing.assert_close(affinity(popular), affinity(attention_BNN), atol=1e-5, rtol=0)
    assert (symmetric_attention(popular) - symmetric_attention(attention_BNN)).abs().max() > 1


def test_profile_is_the_cosine_of_centred_rows(attention_BNN):
    similarity = attention_profile_similarity(attention_BNN)
    for image, attention_NN in zip(similarity, attention_BNN.double().numpy(), strict=True):
        centred_NN = attention_NN - attention_NN.mean(axis=0)
        np.testing.assert_allclose(image.numpy(), 1 - cdist(centred_NN, centred_NN, "cosine"), atol=1e-5)
    assert similarity.abs().max() <= 1 + 1e-6


def test_one_direction_or_the_other_by_hand():
    attention = torch.tensor([[[0.5, 0.25, 0.25], [0.75, 0.0, 0.25], [0.5, 0.5, 0.0]]])
    lesser = torch.tensor([[[0.5, 0.25, 0.25], [0.25, 0.0, 0.25], [0.25, 0.25, 0.0]]])
    greater = torch.tensor([[[0.5, 0.75, 0.5], [0.75, 0.0, 0.5], [0.5, 0.5, 0.0]]])
    for affinity, expected in ((mutual_attention, lesser), (either_attention, greater)):
        assert torch.equal(affinity(attention), expected)
        assert torch.equal(symmetric_attention(affinity(attention)), expected), "nothing is left to take the mean of"
    assert torch.equal(lesser + greater, 2 * symmetric_attention(attention))


def test_even_attention_has_no_profile():
    assert not attention_profile_similarity(torch.full((1, 4, 4), 0.25)).any()


@pytest.mark.parametrize("name", AFFINITIES)
def test_every_affinity_is_finite_and_follows_the_order_of_the_patches(attention_BNN, name):
    affinity = AFFINITIES[name](attention_BNN)
    assert affinity.shape == attention_BNN.shape
    assert affinity.isfinite().all()
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    reordered = AFFINITIES[name](attention_BNN[:, order][:, :, order])
    torch.testing.assert_close(reordered, affinity[:, order][:, :, order])


def test_the_tree_of_popular_keys_is_a_chain_until_popularity_is_taken_off(attention_BNN):
    chained = build_hierarchy(symmetric_attention(attention_BNN + torch.linspace(0, 5, 20)))
    corrected = build_hierarchy(popularity_corrected_attention(attention_BNN + torch.linspace(0, 5, 20)))
    assert chained.height.min() >= 15
    assert corrected.height.max() <= 10
