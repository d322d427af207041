"""Decoders that give the same pixels as Pillow in less time, each used where its library is installed."""

from collections.abc import Callable
from functools import cache

import torch
from PIL import Image
from torch import Tensor

Decoder = Callable[[bytes, Image.Image], Tensor]
"""(file, the same file opened by Pillow, which says that it is RGB or grey) -> (3, H, W) uint8, (1, H, W) where it is grey.

The image is not turned yet. Raises a ValueError or RuntimeError where the file is damaged: then Pillow has the last word.
"""


def _simplejpeg() -> Decoder:
    from simplejpeg import decode_jpeg

    def decode(data: bytes, file: Image.Image) -> Tensor:
        pixels = decode_jpeg(data, "GRAY" if file.mode == "L" else "RGB", strict=True)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    return decode


def _torchcodec() -> Decoder:
    from torchcodec.decoders import decode_webp  # pyright: ignore

    def decode(data: bytes, _: Image.Image) -> Tensor:
        if data[12:16] == b"VP8X":
            raise ValueError("of the extended kind: it may be animated, or turned, which torchcodec sees to in its own way")
        return decode_webp(data)

    return decode


DECODERS: dict[str, Callable[[], Decoder]] = {
    "JPEG": _simplejpeg,
    "MPO": _simplejpeg,  # a JPEG that others follow in the same file, as telephones write them
    "WEBP": _torchcodec,
}
"""By the format, as Pillow names it. torchcodec decodes JPEG too, no faster than simplejpeg."""


@cache
def load(importer: Callable[[], Decoder]) -> Decoder | None:
    """The decoder, None where its library is not installed, is too old, or does not go with this torch."""
    try:
        return importer()
    except (ImportError, OSError, RuntimeError):
        return None
