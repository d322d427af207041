"""Mask R-CNN on the feature pyramid of an encoder: torchvision's parts, put together for images that are scaled before."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from evomask.models.feature_pyramid import FeaturePyramid

DETECTION_BLOCKS = (2, 5, 8, 11)
"""Of 12, from 0: a ViT is split into 4 equal parts, and maps are taken after each (Section V-B of the paper)."""
BOX_SIDE, MASK_SIDE = 7, 14
"""Places along the side of a box that its class, and its mask, is told from."""


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """What stands on the feature pyramid. The defaults are those of Mask R-CNN with an FPN (He et al., 2017; Lin et al., 2017).

    Attributes:
        channels: of the pyramid and of the heads; the box head has four times as many.
        anchor_scale: side of an anchor over the stride of its map: 8 for 32 px at stride 4; less where objects are small.
        proposals: at most so many boxes an image go from the region proposals to the heads, in training twice as many.
        rpn_samples: anchors of an image that the region proposals are trained on.
        roi_samples: proposed boxes of an image that the heads are trained on, at most a quarter of them objects.
        min_score: detections below are dropped.
    """

    channels: int = 256
    anchor_scale: float = 8.0
    proposals: int = 1000
    rpn_samples: int = 256
    roi_samples: int = 512
    min_score: float = 0.05

    def __post_init__(self):
        for name in ("channels", "anchor_scale", "proposals", "rpn_samples", "roi_samples"):
            if getattr(self, name) <= 0:
                raise ValueError(f"--detector.{name.replace('_', '-')} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.min_score < 1:
            raise ValueError(f"--detector.min-score must be at least 0 and below 1, not {self.min_score}")


class Detector(nn.Module):
    """Images -> losses in training, detections in evaluation.

    Args:
        pyramid: the encoder's four maps, at strides 4, 8, 16 and 32.
        classes: how many, without the background.
        size: side in pixels of the square that images are laid into, at its top left; all are scaled to fit before.
        mean: of a channel of images in [0, 1], to be subtracted; one number a channel.
        std: to divide by after that; one number a channel.
        config: the rest.

    Raises:
        ValueError: maps that torchvision cannot pool from, or that do not fit the square.
    """

    def __init__(
        self,
        pyramid: FeaturePyramid,
        classes: int,
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
        config: DetectorConfig,
    ):
        super().__init__()
        if any(stride != 2 ** round(math.log2(stride)) for stride in pyramid.strides):
            raise ValueError(f"torchvision pools from maps at strides that are powers of 2, not at {pyramid.strides} px")
        if size % pyramid.multiple:
            raise ValueError(f"--image-size must be a multiple of {pyramid.multiple} px for this encoder, not {size}")
        channels = config.channels
        strides = (*pyramid.strides, 2 * pyramid.strides[-1])
        anchors = _Anchors(tuple((config.anchor_scale * stride,) for stride in strides), ((0.5, 1.0, 2.0),) * len(strides))
        self.rcnn = MaskRCNN(
            _Backbone(pyramid, channels),
            rpn_anchor_generator=anchors,
            rpn_pre_nms_top_n_train=2 * config.proposals,
            rpn_pre_nms_top_n_test=config.proposals,
            rpn_post_nms_top_n_train=2 * config.proposals,
            rpn_post_nms_top_n_test=config.proposals,
            rpn_batch_size_per_image=config.rpn_samples,
            box_roi_pool=_RoIAlign(BOX_SIDE, size),
            box_head=TwoMLPHead(channels * BOX_SIDE**2, 4 * channels),
            box_predictor=_BoxPredictor(4 * channels, classes + 1),
            box_batch_size_per_image=config.roi_samples,
            box_score_thresh=config.min_score,
            mask_roi_pool=_RoIAlign(MASK_SIDE, size),
            mask_head=MaskRCNNHeads(channels, (channels,) * 4, 1),
            mask_predictor=MaskRCNNPredictor(channels, channels, classes + 1),
            rpn_head=_RPNHead(channels, anchors.num_anchors_per_location()[0]),
            image_mean=list(mean),
            image_std=list(std),
            size_divisible=size,  # of a batch that is padded: with images that fit, the square
        )

    def forward(
        self,
        images: Sequence[Tensor],
        targets: list[dict[str, Tensor]] | None = None,
        sizes: list[tuple[int, int]] | None = None,
    ) -> Any:
        """Detect, or learn to.

        Args:
            images: (C, h, w) uint8 each, h and w at most the square's side.
            targets: in training, of each image `boxes` (K, 4), left, top, right, bottom in its pixels, `labels` (K,) long from
                1, `masks` (K, h, w) uint8.
            sizes: in evaluation, height and width of each image before it was scaled, which detections are for.

        Returns:
            In training losses by their names, whose sum is to be minimised. In evaluation of each image `boxes` (D, 4),
            `labels` (D,), `scores` (D,) in falling order and `masks` (D, 1, height, width), probabilities.
        """
        transform = cast(GeneralizedRCNNTransform, self.rcnn.transform)
        shown = [(image.shape[-2], image.shape[-1]) for image in images]
        # torchvision would scale once more here, and in evaluation without smoothing.
        normalised = [transform.normalize(image.float() / 255) for image in images]
        square = transform.batch_images(normalised, transform.size_divisible)
        features = self.rcnn.backbone(square)
        proposals, rpn_losses = self.rcnn.rpn(ImageList(square, shown), features, targets)
        detections, roi_losses = self.rcnn.roi_heads(features, proposals, shown, targets)
        if self.training:
            return roi_losses | rpn_losses
        return transform.postprocess(detections, shown, sizes)  # type: ignore[arg-type]


class _Backbone(nn.Module):
    """Images (B, C, H, W) -> five maps of one width, "0" to "3" and "pool", the last at twice the stride of the one before."""

    def __init__(self, pyramid: FeaturePyramid, channels: int):
        super().__init__()
        self.pyramid = pyramid
        self.fpn = FeaturePyramidNetwork(list(pyramid.channels), channels, LastLevelMaxPool())
        self.out_channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        maps = self.pyramid(images)
        return self.fpn(OrderedDict((str(number), each) for number, each in enumerate(maps)))


class _RoIAlign(MultiScaleRoIAlign):
    """torchvision guesses the strides of maps from the sizes of images, which here may be far smaller than the square."""

    def __init__(self, side: int, size: int):
        super().__init__(["0", "1", "2", "3"], output_size=side, sampling_ratio=2)
        self._square = [(size, size)]

    def forward(self, x: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]) -> Tensor:
        return super().forward(x, boxes, self._square)


# Boxes, and how sure they are, are made in float32 whatever autocast makes of the maps: beyond 256 px bfloat16 knows but every
# second pixel, and beyond 512 every fourth.


class _Anchors(AnchorGenerator):
    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        # Of the maps it asks for the type, and for height and width.
        return super().forward(image_list, [each.new_empty(each.shape[-2:], dtype=torch.float32) for each in feature_maps])


class _RPNHead(RPNHead):
    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        sureness, offsets = super().forward(x)
        return [each.float() for each in sureness], [each.float() for each in offsets]


class _BoxPredictor(FastRCNNPredictor):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sureness, offsets = super().forward(x)
        return sureness.float(), offsets.float()
