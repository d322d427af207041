import math

import pytest
import torch

from evomask.analysis.rankme import rankme


def test_directions_of_equal_weight_are_counted():
    assert rankme(torch.eye(5, 7)) == pytest.approx(5)
    assert rankme(torch.cat((torch.eye(4), -torch.eye(4)))) == pytest.approx(4)


def test_a_collapsed_encoder_has_one():
    assert rankme(torch.arange(1.0, 9).unsqueeze(1) * torch.tensor([[0.3, -2.0, 1.0]])) == pytest.approx(1, abs=1e-5)


def test_two_directions_by_hand():
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert rankme(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(entropy))


def test_neither_scale_nor_rotation_matters():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(50, 8, generator=generator)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator))
    assert rankme(17 * features @ rotation) == pytest.approx(rankme(features), rel=1e-5)
