"""What all tokenizers have in common: sizes, scaling, precision, and how the use of tokens is counted."""

import math

import pytest
import torch
from torch import Tensor

from evomask.models.tokenizer import Tokenizer, code_usage


class Brightness(Tokenizer):
    """The mean of each 4 x 4 px as one of ten words: what it must say can be told by hand."""

    vocabulary, stride, in_chans = 10, 4, 1

    def ids(self, pixels: Tensor) -> Tensor:
        self.seen = pixels
        return (10 * pixels.mean(dim=1).unflatten(2, (-1, 4)).unflatten(1, (-1, 4)).mean(dim=(2, 4))).long().clamp(max=9)


def test_tokens_are_given_row_by_row():
    pixels = torch.zeros(2, 1, 8, 12)
    pixels[1, :, :4, 4:8] = 0.55
    pixels[1, :, 4:, 8:] = 0.95
    assert Brightness()(pixels, (2, 3)).tolist() == [[0] * 6, [0, 5, 0, 0, 0, 9]]


def test_images_are_scaled_to_its_own_size():
    tokenizer = Brightness()
    pixels = torch.full((1, 1, 48, 48), 0.35)
    pixels[..., 24:] = 0.75
    assert tokenizer.image_size((2, 2)) == (8, 8)
    assert tokenizer(pixels, (2, 2)).tolist() == [[3, 7, 3, 7]]
    assert tokenizer.seen.shape == (1, 1, 8, 8)
    assert tokenizer.seen.min() >= 0 and tokenizer.seen.max() <= 1
    own = torch.rand(1, 1, 8, 8)
    tokenizer(own, (2, 2))
    assert tokenizer.seen.equal(own), "of its own size, they are as they were"


def test_the_precision_of_the_training_changes_no_token():
    tokenizer = Brightness()
    with torch.autocast("cpu", torch.bfloat16):
        tokenizer(torch.rand(1, 1, 8, 8).bfloat16(), (2, 2))
    assert tokenizer.seen.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def test_it_need_not_have_a_decoder():
    assert Brightness().decode(torch.zeros(1, 2, 2, dtype=torch.long)) is None


@pytest.mark.parametrize(
    ("ids", "perplexity", "used"),
    [
        ([[3, 3], [3, 3]], 1.0, 12.5),
        ([0, 1, 2, 3, 4, 5, 6, 7], 8.0, 100.0),
        ([0, 0, 7, 7], 2.0, 25.0),
        ([0, 0, 0, 1], math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)), 25.0),
    ],
)
def test_the_use_of_tokens_by_hand(ids: list, perplexity: float, used: float):
    usage = code_usage(torch.tensor(ids), 8)
    assert usage == {"perplexity": pytest.approx(perplexity), "codes_used": used}
