"""Features of all images of a labelled set, computed once."""

import torch
from torch import Tensor

from evomask.data.images import ImageSource
from evomask.data.labelled import LabelledImages
from evomask.engine.pretrain import normalise
from evomask.models.encoders import Encoder, Pooling
from evomask.tasks.image_pass import for_all_images


@torch.no_grad()
def features_of(encoder: Encoder, images_uint8: Tensor, pooling: Pooling) -> Tensor:
    """(B, C, H, W) uint8 on the encoder's device -> (B, D) float32."""
    return encoder.features(normalise(images_uint8, encoder.mean, encoder.std), pooling).float()


def extract_features(
    encoder: Encoder,
    source: ImageSource,
    title: str,
    *,
    device: torch.device,
    workers: int,
    batch_size: int = 128,
    pooling: Pooling = "mean",
    shown: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Features (n, D) and labels (n,) of all images, on the CPU.

    Args:
        encoder: goes to the device.
        source: images with labels.
        title: for the progress bar.
        device: to compute on.
        workers: processes that load images.
        batch_size: images at a time.
        pooling: what features are made of.
        shown: how much of an image's shorter side is seen, see `LabelledImages`.
    """
    encoder.model.to(device)
    images = LabelledImages(source, encoder.image_size, shown)
    looks = {"device": device, "batch_size": batch_size, "workers": workers}
    return for_all_images(lambda images_uint8: features_of(encoder, images_uint8, pooling), images, title, **looks)
