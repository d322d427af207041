import pytest

from evomask.engine.optim import learning_rate
from evomask.recipes import EVALUATIONS

STEPS_PER_EPOCH = 117_266 // 16
"""COCO's training images with objects, at the usual batch."""


@pytest.mark.parametrize(("name", "epochs", "falls"), [("detection_1x", 12, (9, 11)), ("detection_3x", 36, (27, 33))])
def test_schedules_are_the_papers(name: str, epochs: int, falls: tuple[int, int]) -> None:
    config = EVALUATIONS[name]()
    numbers = {"batch_size": config.loop.batch_size, "steps_per_epoch": STEPS_PER_EPOCH, "epochs": config.loop.epochs}

    def rate(epoch: float) -> float:
        return learning_rate(round(epoch * STEPS_PER_EPOCH), config=config.optim, **numbers)

    assert config.loop.epochs == epochs
    assert config.optim.weight_decay == 0.05
    first, second = falls
    assert [rate(epoch) for epoch in (0.2, first - 0.01)] == pytest.approx([3e-4] * 2)
    assert [rate(epoch) for epoch in (first, second - 0.01)] == pytest.approx([3e-5] * 2)
    assert [rate(epoch) for epoch in (second, epochs - 0.01)] == pytest.approx([3e-6] * 2)
    assert config.optim.warmup_epochs * STEPS_PER_EPOCH == pytest.approx(1000, rel=0.1)
    assert (config.image_size, config.scale) == (1024, (0.1, 2.0))
