import pytest

from evomask.recipes import EVALUATIONS


def test_settings_for_landmarks_are_those_of_delg_and_the_paper() -> None:
    config = EVALUATIONS["retrieval_landmarks"]()
    assert (config.pooling, config.power, config.long_side) == ("gem", 3.0, 1024)
    assert config.scales == pytest.approx((0.7071, 1.0, 1.4142), abs=1e-4)
    arcface = config.arcface
    assert (arcface.width, arcface.margin, arcface.scale) == (2048, 0.1, 45.25)
    assert (arcface.lr, arcface.momentum, arcface.clip_grad, arcface.crop_scale) == (0.01, 0.9, 10.0, (0.08, 1.0))
    steps = config.loop.epochs * (1_580_470 // config.loop.batch_size)
    assert steps == pytest.approx(6e6, rel=0.01)
