"""What a detector is shown: boxes that fit their masks whatever is scaled, cut and mirrored, and draws that are a function of
the key alone.
"""

import torch
from torchvision.ops import masks_to_boxes

from evomask.data.decode import UnreadableImage
from evomask.data.instance_crops import InstanceCrops, WholeInstanceImages, boxes_of, collate
from evomask.data.instances import Instances, ScenesWithObjects, to_xywh
from evomask.data.rle import decode_mask, encode_masks


class OneImage:
    """Of 40 x 20 px, black, with a white rectangle that is its only object."""

    classes = ("rectangle",)

    def __init__(self, box: tuple[int, int, int, int] = (4, 6, 16, 14)):
        left, top, right, bottom = box
        mask = torch.zeros(1, 20, 40, dtype=torch.bool)
        mask[:, top:bottom, left:right] = True
        self.found = Instances(torch.tensor([box]).float(), torch.tensor([1]), mask)

    def __len__(self) -> int:
        return 1

    def image(self, index: int) -> torch.Tensor:
        return 255 * self.found.masks.to(torch.uint8).expand(3, -1, -1)

    def label(self, index: int) -> None: ...

    def name(self, index: int) -> str:
        return "one"

    def instances(self, index: int) -> Instances:
        return self.found


def crops(source, scale: tuple[float, float], flip: bool = True, size: int = 40) -> InstanceCrops:
    return InstanceCrops(source, size, 3, seed=0, scale=scale, flip=flip)


def test_plain_it_only_fits_the_square() -> None:
    image, objects, used = crops(OneImage(), (1.0, 1.0), flip=False, size=80)[0, 0]
    assert image.shape == (3, 40, 80)
    assert objects["boxes"].tolist() == [[8, 12, 32, 28]]
    assert objects["masks"].dtype == torch.uint8
    assert boxes_of(objects["masks"].bool()).tolist() == [[8, 12, 32, 28]]
    assert used == 0


def test_masks_are_not_shifted_where_images_shrink() -> None:
    shifts = []
    for left in range(10):
        found = OneImage((left, 2, left + 20, 18))
        _, objects, _ = crops(found, (1.0, 1.0), flip=False, size=8)[0, 0]  # five pixels become one
        shifts.append(boxes_of(objects["masks"].bool()).reshape(2, 2).mean(dim=0) - objects["boxes"].reshape(2, 2).mean(dim=0))
    assert torch.stack(shifts).mean(dim=0)[0].abs() < 0.1, "the nearest pixel below would be 0.4 off"


def test_a_mirrored_box_lies_where_its_object_is() -> None:
    dataset = crops(OneImage(), (1.0, 1.0))
    seen = {tuple(objects["boxes"][0].tolist()) for _, objects, _ in (dataset[epoch, 0] for epoch in range(20))}
    assert seen == {(4, 6, 16, 14), (24, 6, 36, 14)}
    for epoch in range(20):
        image, objects, _ = dataset[epoch, 0]
        assert torch.equal(image[0] > 127, objects["masks"][0].bool())


def test_whatever_is_cut_out_the_box_is_that_of_what_is_left() -> None:
    dataset = crops(OneImage(), (0.1, 2.0))
    sizes, cut = set(), 0
    for epoch in range(60):
        image, objects, _ = dataset[epoch, 0]
        assert max(image.shape[-2:]) <= 40
        sizes.add(tuple(image.shape[-2:]))
        for mask, box in zip(objects["masks"], objects["boxes"], strict=True):
            assert mask.shape == image.shape[-2:]
            seen = image[0] > 127
            left, top, right, bottom = (round(side) for side in box.tolist())
            inside = seen[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1]
            assert inside.sum() == seen.sum()
            cut += bool((box == torch.tensor([0, 0, *image.shape[:0:-1]])).any() and image.shape[-1] == 40)
        assert len(objects["labels"]) == len(objects["boxes"]) == len(objects["masks"])
    assert len(sizes) > 15
    assert cut > 5


def test_draws_are_a_function_of_the_key() -> None:
    source = ScenesWithObjects((32, 32), 4)
    one, other = (crops(source, (0.3, 2.0), size=32) for _ in range(2))
    for key in ((0, 1), (1, 1), (0, 3)):
        torch.rand(3)
        first, again = one[key], other[key]
        assert torch.equal(first[0], again[0])
        torch.testing.assert_close(first[1], again[1], rtol=0, atol=0)
    assert not torch.equal(one[0, 1][0], one[1, 1][0])


def test_boxes_of_masks_are_those_of_torchvision_but_exclusive() -> None:
    torch.manual_seed(0)
    masks = torch.rand(6, 9, 11) > 0.9
    expected = masks_to_boxes(masks) + torch.tensor([0, 0, 1, 1])
    assert torch.equal(boxes_of(masks), expected)
    assert boxes_of(torch.zeros(1, 3, 3, dtype=torch.bool)).tolist() == [[0, 0, 0, 0]]
    assert boxes_of(torch.zeros(0, 3, 3, dtype=torch.bool)).shape == (0, 4)


def test_where_no_image_can_be_read_there_is_an_empty_one() -> None:
    source = OneImage()

    def broken(index: int) -> torch.Tensor:
        raise UnreadableImage("broken")

    source.image = broken  # type: ignore[method-assign]
    image, objects, used = crops(source, (0.5, 0.5))[0, 0]
    assert used == -1
    assert image.shape == (3, 20, 20)
    assert objects["masks"].shape == (0, 20, 20)


def test_whole_images_come_with_the_size_they_had() -> None:
    image, size = WholeInstanceImages(OneImage(), 20)[0]
    assert image.shape == (3, 10, 20)
    assert size == (20, 40)
    images, sizes = collate([(image, size), (image, size)])
    assert len(images) == 2
    assert sizes.tolist() == [[20, 40], [20, 40]]


def test_scenes_are_their_own_truth() -> None:
    source = ScenesWithObjects((40, 48), 3)
    truth = source.truth()
    assert [image["id"] for image in truth["images"]] == [1, 2, 3]
    for index in range(3):
        found = source.instances(index)
        assert torch.equal(boxes_of(found.masks), found.boxes)
        said = [each for each in truth["annotations"] if each["image_id"] == index + 1]
        assert [each["category_id"] for each in said] == found.labels.tolist()
        assert [each["bbox"] for each in said] == to_xywh(found.boxes).tolist()
        assert torch.equal(torch.stack([decode_mask(each["segmentation"], (40, 48)) for each in said]), found.masks)
        assert [each["area"] for each in said] == found.masks.flatten(1).sum(dim=1).tolist()
        assert truth["categories"][int(found.labels[0]) - 1]["name"] == source.classes[int(found.labels[0]) - 1]


def test_no_mask_has_no_run_lengths() -> None:
    assert encode_masks(torch.zeros(0, 5, 5, dtype=torch.bool)) == []
