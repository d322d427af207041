"""The tokenizer that is trained here: each number of levels, its words, its gradient, its sizes."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomask.models.discrete_vae import DiscreteVAEConfig, ScalarQuantiser
from evomask.models.tokenizer import code_usage

SMALL = DiscreteVAEConfig(levels=(4, 3), stride=4, width=8)


def test_rounding_by_hand():
    """Five levels are -1, -1/2, 0, 1/2 and 1; four are -1, -1/2, 0 and 1/2. What is squashed is rounded to the nearest."""
    quantise = ScalarQuantiser((5, 4))
    latents = torch.tensor([[0.0, 0.0], [9.0, 9.0], [-9.0, -9.0], [math.atanh(0.74), math.atanh(0.6)]])
    codes, ids = quantise(latents.T[None, :, None])  # four places in a row
    assert codes[0, 0, 0].tolist() == [0, 1, -1, 0.5]
    assert codes[0, 1, 0].tolist() == [0, 0.5, -1, 0.5]
    assert ids.flatten().tolist() == [2 + 5 * 2, 4 + 5 * 3, 0, 3 + 5 * 3]


@settings(max_examples=30)
@given(levels=st.lists(st.integers(2, 8), min_size=1, max_size=4))
def test_every_word_has_its_code_and_back(levels: list[int]):
    quantise, words = ScalarQuantiser(tuple(levels)), math.prod(levels)
    ids = torch.arange(words).view(1, 1, words)
    codes = quantise.codes_of(ids)
    assert len({tuple(code) for code in codes[0, :, 0].T.tolist()}) == words
    expected = [[(step - n // 2) / (n // 2) for step in range(n)] for n in levels]
    assert {tuple(round(x, 5) for x in code) for code in codes[0, :, 0].T.tolist()} == {
        tuple(round(x, 5) for x in code) for code in itertools.product(*expected)
    }
    half = torch.tensor([(n - 1) * 1.001 / 2 for n in levels])
    offset = torch.tensor([0.5 if n % 2 == 0 else 0.0 for n in levels])
    steps = codes[0, :, 0].T * torch.tensor([n // 2 for n in levels])
    latents = ((steps + offset) / half).atanh() - (offset / half).atanh()  # the middle of each step, squashed the other way
    again, found = quantise(latents.T[None, :, None])
    assert found.equal(ids)
    torch.testing.assert_close(again, codes)


def test_the_gradient_is_that_of_the_squashing_alone():
    quantise = ScalarQuantiser((5,))
    latents = torch.linspace(-2, 2, 9).view(1, 1, 1, 9).requires_grad_()
    quantise(latents)[0].sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad.flatten(), 2.002 / 2 * (1 - torch.linspace(-2, 2, 9).tanh() ** 2))


@pytest.mark.parametrize(("stride", "width"), [(2, 4), (4, 8), (8, 16), (16, 16)])
def test_a_place_is_as_large_as_the_stride_says(stride: int, width: int):
    model = DiscreteVAEConfig(levels=(4, 3), stride=stride, width=width, in_chans=2).build().eval()
    pixels = torch.rand(2, 2, 3 * stride, 2 * stride)
    restored, ids = model.autoencode(pixels)
    assert restored.shape == pixels.shape and ids.shape == (2, 3, 2)
    assert ids.min() >= 0 and ids.max() < model.vocabulary == 12
    assert model.ids(pixels).equal(ids) and model(pixels, (3, 2)).equal(ids.flatten(1))
    torch.testing.assert_close(model.decode(ids), restored.clamp(0, 1))


def test_a_codebook_begins_spread_out():
    torch.manual_seed(0)
    model = DiscreteVAEConfig(width=32).build()
    assert code_usage(model.ids(torch.rand(64, 3, 32, 32)), 1000)["perplexity"] > 50


def test_the_gradient_reaches_every_parameter():
    torch.manual_seed(0)
    model = SMALL.build()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    pixels = torch.rand(4, 3, 16, 16)
    (model.autoencode(pixels)[0] - pixels).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": (8, 1)}, "at least 2 each"),
        ({"levels": ()}, "at least 2 each"),
        ({"stride": 6}, "must be a power of 2"),
        ({"stride": 8, "width": 6}, "a multiple of half the stride"),
        ({"in_chans": 0}, "--model.in-chans must be at least 1"),
    ],
)
def test_what_cannot_be_built_is_said(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        DiscreteVAEConfig(**options)
