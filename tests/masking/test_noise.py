import pytest
import torch
from scipy import stats

from evomask.masking.noise import uniform_stream


def _noise(images: int, patches: int = 196, seed: int = 0) -> torch.Tensor:
    return torch.rand(images, patches, generator=torch.Generator().manual_seed(seed))


def _correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return torch.corrcoef(torch.stack((a.flatten(), b.flatten()))).abs()[0, 1].item()


def _splitmix64(seed: int, count: int) -> list[int]:
    """Steele et al. (2014), in numbers of any length."""
    words, state = [], seed
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        word = state
        word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
        words.append(word ^ (word >> 31))
    return words


def test_it_is_splitmix64():
    # The published first outputs for the seed 1234567.
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert _splitmix64(1234567, 5) == published
    noise = torch.tensor([[1234567 / 2**53]], dtype=torch.float64)
    assert uniform_stream(noise, 5)[0].tolist() == [(word >> 11) / 2**53 for word in published]


def test_the_seed_is_the_sum_of_the_noise_and_may_wrap_around():
    noise = _noise(2, patches=5000).double()
    for row, stream in zip(noise, uniform_stream(noise, 20), strict=True):
        seed = sum(int(value * 2**53) for value in row.tolist())
        assert seed > 2**64
        assert stream.tolist() == [(word >> 11) / 2**53 for word in _splitmix64(seed, 20)]


def test_values_are_uniform():
    stream = uniform_stream(_noise(200), 1000)
    assert stream.dtype == torch.float64
    assert stream.shape == (200, 1000)
    assert stream.min() >= 0
    assert stream.max() < 1
    assert stats.kstest(stream.flatten().numpy(), "uniform").pvalue > 1e-3
    counts = stream.mul(256).long().flatten().bincount(minlength=256)
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_each_draw_is_uniform_over_images():
    stream = uniform_stream(_noise(5000), 8)
    for draw in stream.T:
        assert stats.kstest(draw.numpy(), "uniform").pvalue > 1e-3


def test_draws_are_unrelated_to_each_other_to_other_images_and_to_the_noise():
    noise = _noise(300)
    stream = uniform_stream(noise, 196)
    bound = 4 / stream.numel() ** 0.5
    for lag in (1, 2, 3, 4):
        assert _correlation(stream[:, lag:], stream[:, :-lag]) < bound
    assert _correlation(stream[1:], stream[:-1]) < bound
    assert _correlation(stream, noise.double()) < bound
    assert len(set(stream[:, 0].tolist())) == 300


@pytest.mark.parametrize("patch", [0, 195])
def test_the_least_step_of_one_noise_value_changes_everything(patch):
    noise = _noise(300)
    changed = noise.clone()
    changed[:, patch] = (changed[:, patch] + 2**-24) % 1
    before, after = uniform_stream(noise, 196), uniform_stream(changed, 196)
    assert (before != after).all()
    assert _correlation(before, after) < 4 / before.numel() ** 0.5


def test_it_is_a_function_of_the_noise_of_the_image():
    noise = _noise(4)
    stream = uniform_stream(noise, 50)
    assert torch.equal(uniform_stream(noise, 50), stream)
    assert torch.equal(uniform_stream(noise[2:3], 50), stream[2:3])
    assert torch.equal(uniform_stream(noise, 10), stream[:, :10])
