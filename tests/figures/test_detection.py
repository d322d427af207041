import torch

from evomask.data.instances import Instances
from evomask.figures.detection import DetectedImage, beside_truth


def test_truth_is_left_and_what_was_found_right() -> None:
    mask = torch.zeros(1, 20, 30, dtype=torch.bool)
    mask[:, 5:15, 4:20] = True
    truth = Instances(torch.tensor([[4.0, 5, 20, 15]]), torch.tensor([2]), mask)
    image = torch.full((3, 20, 30), 100, dtype=torch.uint8)
    pictures = [
        DetectedImage(image, truth, truth, torch.tensor([0.87])),
        DetectedImage(image, truth, Instances.none((20, 30)), torch.zeros(0)),
    ]
    axes = beside_truth(pictures, ["boat", "car"]).axes
    assert [ax.get_title() for ax in axes] == ["truth", "found", "", ""]
    assert [[text.get_text() for text in ax.texts] for ax in axes] == [["car"], ["car 87%"], ["car"], []]
    (box,) = axes[1].patches
    assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (4, 5, 16, 10)
    pixels = axes[1].images[0].get_array()
    assert (pixels[0, 0] * 255).round().tolist() == [100] * 3
    assert (pixels[10, 10] * 255).round().tolist() != [100] * 3
    assert image.eq(100).all(), "the image itself stays as it is"
