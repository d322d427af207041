"""The detector against torchvision's own Mask R-CNN with the same weights, and where the two must differ."""

from typing import Any

import pytest
import torch
from torchvision.ops import MultiScaleRoIAlign

from evomask.models.detector import DETECTION_BLOCKS, Detector, DetectorConfig
from evomask.models.feature_pyramid import FeaturePyramid
from evomask.models.vit import ViTConfig, build_vit

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
TINY = DetectorConfig(channels=8, anchor_scale=4, proposals=20, rpn_samples=16, roi_samples=8, min_score=0.0)


def detector(size: int = 64, patch: int = 8, config: DetectorConfig = TINY) -> Detector:
    torch.manual_seed(0)
    shape = {"image_size": (size, size), "patch_size": patch, "width": 16, "depth": 4, "heads": 2}
    vit = build_vit(ViTConfig(name="vit_tiny_patch16_224", **shape))
    return Detector(FeaturePyramid(vit, (size, size), blocks=DETECTION_BLOCKS), 3, size, MEAN, STD, config)


def objects(height: int, width: int) -> dict[str, torch.Tensor]:
    masks = torch.zeros(2, height, width, dtype=torch.uint8)
    masks[0, 2:20, 3:18] = 1
    masks[1, 10:25, 8:30] = 1
    boxes = torch.tensor([[3.0, 2, 18, 20], [8, 10, 30, 25]])
    return {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": masks}


def test_losses_are_those_of_torchvision() -> None:
    model = detector().train()
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8), torch.randint(0, 256, (3, 48, 64), dtype=torch.uint8)]
    targets = [objects(64, 64), objects(48, 64)]
    torch.manual_seed(1)
    losses = model(images, targets)
    model.rcnn.transform._skip_resize = True
    torch.manual_seed(1)
    expected = model.rcnn([image / 255 for image in images], targets)
    assert set(losses) == {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=1e-6)


def test_detections_are_those_of_torchvision_where_nothing_is_scaled() -> None:
    model = detector().eval()
    images = [torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)]
    model.rcnn.transform.min_size, model.rcnn.transform.max_size = (64,), 64
    with torch.no_grad():
        (found,) = model(images, sizes=[(64, 64)])
        (expected,) = model.rcnn([image / 255 for image in images])
        (doubled,) = model(images, sizes=[(128, 128)])
    assert len(found["boxes"]) > 0
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(doubled["boxes"], 2 * found["boxes"])
    assert doubled["masks"].shape[-2:] == (128, 128)


def test_images_are_normalised_once_and_padded_with_their_mean() -> None:
    model = detector()
    seen: list[torch.Tensor] = []
    model.rcnn.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.randint(0, 256, (3, 40, 64), dtype=torch.uint8)
    model.eval()([image], sizes=[(40, 64)])
    (square,) = seen
    assert square.shape == (1, 3, 64, 64)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(square[0, :, :40], (image / 255 - mean) / std)
    assert not square[0, :, 40:].any()


def test_boxes_are_pooled_at_the_true_strides_however_small_the_images() -> None:
    """Told of images whose side is a quarter of the square's, torchvision takes a stride of 2 px for one of half a pixel."""
    model = detector()
    maps = {str(number): torch.rand(1, 8, 32 // 2**number, 32 // 2**number) for number in range(4)}
    boxes = [torch.tensor([[2.0, 3, 14, 15]])]
    small = model.rcnn.roi_heads.box_roi_pool(maps, boxes, [(16, 16)])
    whole, misled = (MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2) for _ in range(2))
    torch.testing.assert_close(small, whole(maps, boxes, [(64, 64)]))
    misled(maps, boxes, [(16, 16)])
    assert misled.scales == [2, 1, 1 / 2, 1 / 4]
    assert model.rcnn.roi_heads.box_roi_pool.scales == [1 / 2, 1 / 4, 1 / 8, 1 / 16]


def test_anchors_fit_the_strides() -> None:
    model = detector(config=DetectorConfig(channels=8, anchor_scale=8))
    generator = model.rcnn.rpn.anchor_generator
    assert generator.sizes == ((16,), (32,), (64,), (128,), (256,))
    assert generator.num_anchors_per_location() == [3] * 5
    maps = model.rcnn.backbone(torch.zeros(1, 3, 64, 64))
    assert list(maps) == ["0", "1", "2", "3", "pool"]
    assert [each.shape[-1] for each in maps.values()] == [32, 16, 8, 4, 2]


def test_an_image_without_objects_can_be_learnt_from() -> None:
    model = detector().train()
    nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.long)}
    nothing["masks"] = torch.zeros(0, 64, 64, dtype=torch.uint8)
    losses = model([torch.zeros(3, 64, 64, dtype=torch.uint8)], [nothing])
    assert losses["loss_mask"] == losses["loss_box_reg"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters()), "as several processes need it"


def test_bfloat16_learns_and_detects() -> None:
    model = detector().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model([torch.zeros(3, 64, 64, dtype=torch.uint8)], [objects(64, 64)])
        assert all(loss.isfinite() for loss in losses.values())
        model.eval()([torch.zeros(3, 64, 64, dtype=torch.uint8)], sizes=[(64, 64)])


def test_boxes_are_as_fine_in_bfloat16() -> None:
    """Which knows but every second pixel beyond 256."""
    model = detector(512, 32)
    seen: dict[str, Any] = {}
    for part in ("rpn.anchor_generator", "rpn.head", "roi_heads.box_predictor"):
        model.rcnn.get_submodule(part).register_forward_hook(lambda _, __, said, part=part: seen.update({part: said}))
    images = [torch.randint(0, 256, (3, 512, 512), dtype=torch.uint8)]
    with torch.autocast("cpu", torch.bfloat16):
        model.train()(images, [objects(512, 512)])
        model.eval()(images, sizes=[(512, 512)])
    anchors = seen["rpn.anchor_generator"]
    told = [*seen["rpn.head"][0], *seen["rpn.head"][1], *seen["roi_heads.box_predictor"]]
    assert {each.dtype for each in told} == {torch.float32}
    model(images, sizes=[(512, 512)])
    torch.testing.assert_close(anchors, seen["rpn.anchor_generator"], rtol=0, atol=0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="strides that are powers of 2"):
        detector(size=60, patch=12)
    with pytest.raises(ValueError, match="multiple of 16 px for this encoder, not 72"):
        detector(size=72)
    with pytest.raises(ValueError, match=r"--detector.channels must be above 0, not 0"):
        DetectorConfig(channels=0)
    with pytest.raises(ValueError, match=r"--detector.min-score must be at least 0 and below 1, not 1"):
        DetectorConfig(min_score=1)
