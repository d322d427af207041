import torch
from torch import Tensor

from evomask.tasks.sliding_window import sliding_logits, window_starts


def test_windows_end_with_the_side() -> None:
    assert window_starts(512, 512, 341) == [0]
    assert window_starts(683, 512, 341) == [0, 171]
    assert window_starts(1400, 512, 341) == [0, 341, 682, 888]
    assert window_starts(853, 512, 341) == [0, 341]
    assert window_starts(100, 512, 341) == [0]


def test_logits_are_means_over_the_windows_of_a_pixel() -> None:
    calls: list[Tensor] = []

    def logits_of(images: Tensor) -> Tensor:
        calls.append(images)
        return images.new_full((1, 2, *images.shape[-2:]), float(len(calls)))

    images = torch.arange(35.0).view(1, 1, 5, 7)
    found = sliding_logits(logits_of, images, (5, 4), (3, 3))
    assert len(calls) == 2
    assert calls[1].equal(images[..., 3:7])
    assert found[0, 0, 0].tolist() == [1, 1, 1, 1.5, 2, 2, 2]
    assert found.shape == (1, 2, 5, 7)
    assert sliding_logits(lambda part: part, images, (3, 3), (2, 2)).equal(images)
    assert sliding_logits(lambda part: part, images, (9, 9), (2, 2)).equal(images)
