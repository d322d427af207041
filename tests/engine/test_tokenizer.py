"""A step of training a tokenizer. Whole trainings are tried in recipes/test_tokenizer.py."""

from dataclasses import replace

import pytest
import torch

from evomask.engine.run import from_dict, to_dict
from evomask.engine.tokenizer import TokenizerStep, TrainTokenizerConfig, build_tokenizer, tokenizer_task
from evomask.models.discrete_vae import DiscreteVAEConfig

CONFIG = TrainTokenizerConfig(model=DiscreteVAEConfig(levels=(5, 4), width=8, blocks=0), image_size=(32, 32))
CONFIG = replace(
    CONFIG, data=replace(CONFIG.data, scenes=16, workers=0), train=replace(CONFIG.train, batch_size=8, device="cpu")
)


def test_the_loss_is_the_squared_error_of_pixels_between_0_and_1():
    model = build_tokenizer(CONFIG)
    images = torch.randint(0, 256, (2, 3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = TokenizerStep(model)((images, torch.rand(2, 1), torch.arange(2)), 0.5)
    restored, ids = model.autoencode(images / 255)
    assert result.loss.item() == pytest.approx((restored - images / 255).square().sum().item() / images.numel())
    used = len(ids.unique())
    assert result.metrics()["codes_used"] == pytest.approx(100 * used / 20)


def test_weights_are_a_function_of_the_seed_and_leave_the_generator_alone():
    before = torch.get_rng_state()
    first, second = build_tokenizer(CONFIG), build_tokenizer(replace(CONFIG, train=replace(CONFIG.train, seed=1)))
    assert torch.get_rng_state().equal(before)
    assert build_tokenizer(CONFIG).encoder[0].weight.equal(first.encoder[0].weight)  # pyright: ignore
    assert not second.encoder[0].weight.equal(first.encoder[0].weight)  # pyright: ignore


def test_a_batch_is_of_crops_in_its_own_size():
    task = tokenizer_task(CONFIG, build_tokenizer(CONFIG))
    images, _, indices = next(task.batches(range(1)))
    assert images.shape == (8, 3, 32, 32) and images.dtype == torch.uint8 and task.steps_per_epoch == 2
    assert sorted(indices.tolist()) == sorted(task.indices(0))


def test_the_configuration_comes_back_from_a_file():
    assert from_dict(TrainTokenizerConfig, to_dict(CONFIG)) == CONFIG
