"""Image file -> uint8 tensor, whatever kind of image file it is."""

import io
import warnings

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class UnreadableImage(ValueError):
    """A file that holds no whole image of a sane size."""


def check_channels(channels: int) -> None:
    """Raise a ValueError where images cannot be decoded to so many channels."""
    if channels not in _MODES:
        raise ValueError(f"image files can be read with 1 (grey), 3 (RGB) or 4 (RGBA) channels, not with {channels}")


def decode(data: bytes, channels: int = 3) -> Tensor:
    """The bytes of a file -> (C, H, W) uint8, upright.

    EXIF rotation is applied; palettes are looked up, CMYK is converted, 16 bits are scaled to 8. Transparent places are laid
    on white, as a browser shows them, unless 4 channels are asked for.

    Args:
        data: the whole file.
        channels: 1 grey, 3 RGB, 4 RGBA.

    Raises:
        UnreadableImage: not an image, cut short, or so large that it looks like a decompression bomb.
    """
    try:
        with warnings.catch_warnings():
            # Pillow only warns of the smaller bombs, and of broken metadata that does no harm.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as file:
                image = ImageOps.exif_transpose(file)
                image.load()
                pixels = np.array(_with_mode(image, _MODES[channels]))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow raises SyntaxError for some broken PNG files, and OSError for most else.
        raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error
    return torch.from_numpy(pixels).view(*pixels.shape[:2], -1).permute(2, 0, 1).contiguous()


def _with_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip at 255 instead of scaling
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((values // 257).astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        low, high = float(values.min()), float(values.max())
        image = Image.fromarray(((values - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8))
    if mode != "RGBA" and (image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
