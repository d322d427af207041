"""An encoder with what names the class of each pixel: UperNet (Xiao et al., 2018), whose heads are those of transformers."""

from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from evomask.models.feature_pyramid import FeaturePyramid

HEAD_STD = 0.01
"""Of the initial weights that make logits."""


class Segmenter(nn.Module):
    """(B, C, H, W) normalised images of any size -> (B, classes, H, W) logits.

    Args:
        pyramid: four maps of an encoder.
        classes: number of classes.
        head_channels: of UperNet's maps.
        auxiliary_channels: of the fully convolutional head on the third map, which only helps in training.

    Raises:
        ValueError: transformers is not installed.
    """

    def __init__(self, pyramid: FeaturePyramid, classes: int, head_channels: int = 768, auxiliary_channels: int = 256):
        super().__init__()
        try:
            from transformers.models.upernet.configuration_upernet import UperNetConfig
            from transformers.models.upernet.modeling_upernet import UperNetFCNHead, UperNetHead
        except ImportError as error:
            raise ValueError(
                "UperNet is that of transformers, which is not here: pip install 'evomask[transformers]'"
            ) from error
        make_config: Any = UperNetConfig  # what it takes is not in its signature
        config = make_config(
            num_labels=classes,
            hidden_size=head_channels,
            pool_scales=[1, 2, 3, 6],
            auxiliary_channels=auxiliary_channels,
            auxiliary_in_channels=cast(int, None),  # as many as the map has
        )
        self.pyramid = pyramid
        self.head: Any = UperNetHead(config, pyramid.channels)
        self.auxiliary: Any = UperNetFCNHead(config, pyramid.channels)
        for head in (self.head, self.auxiliary):
            nn.init.normal_(head.classifier.weight, std=HEAD_STD)
            nn.init.zeros_(head.classifier.bias)

    def forward(self, images: Tensor) -> Tensor:
        """(B, classes, H, W) logits."""
        return self._of_size(self.head(self.pyramid(images)), images)

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, classes, H, W) logits of UperNet and of the head beside it, for training."""
        maps = self.pyramid(images)
        return self._of_size(self.head(maps), images), self._of_size(self.auxiliary(maps), images)

    def _of_size(self, logits: Tensor, images: Tensor) -> Tensor:
        """The maps are of images that were filled up: scale to these, and cut off what was added."""
        height, width = images.shape[-2:]
        filled_up = [side + -side % self.pyramid.multiple for side in (height, width)]
        return functional.interpolate(logits, filled_up, mode="bilinear", align_corners=False)[..., :height, :width]
