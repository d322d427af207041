"""What named evaluations by segmentation come to, in steps and rates, as they are published."""

import pytest

from evomask.engine.optim import learning_rate
from evomask.recipes import EVALUATIONS
from evomask.tasks.segmentation import SegmentationConfig


def rate(config: SegmentationConfig, step: int) -> float:
    assert config.iterations_per_epoch is not None
    how = {"batch_size": config.loop.batch_size, "steps_per_epoch": config.iterations_per_epoch, "epochs": config.loop.epochs}
    return learning_rate(step, config=config.optim, **how)


@pytest.mark.parametrize(("name", "peak", "decay"), [("segmentation_ade20k", 1e-4, 0.65), ("segmentation_beit", 3e-5, 0.9)])
def test_ade20k_is_160k_iterations_of_16(name: str, peak: float, decay: float) -> None:
    config = EVALUATIONS[name]()
    assert config.iterations_per_epoch * config.loop.epochs == 160_000
    assert config.loop.batch_size == 16
    assert config.layer_decay == decay
    assert rate(config, 750) == pytest.approx(peak / 2)
    assert rate(config, 1500) == pytest.approx(peak)
    assert rate(config, 1500 + 158_500 // 2) == pytest.approx(peak / 2)
    assert rate(config, 160_000) == pytest.approx(0.0)
    assert (config.crop, config.stride, config.head_channels) == ((512, 512), (341, 341), 768)


def test_a_small_one_is_made_of_passes_over_the_images() -> None:
    assert EVALUATIONS["segmentation_small"]().iterations_per_epoch is None
