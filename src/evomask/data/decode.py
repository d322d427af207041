"""Image file -> uint8 tensor, whatever kind of image file it is.

Pillow says what a file is, decodes all kinds, and decides what is refused. A faster library may only fill in the pixels of RGB
and grey files, and they are the same, bit for bit: what is installed changes how long training takes, and nothing else.
"""

import io
import warnings
from collections.abc import Callable, Mapping

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from evomask.data.codecs import DECODERS, Decoder, load

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112
_MIRRORED_AXES: dict[int, list[int]] = {2: [2], 3: [1, 2], 4: [1], 6: [2], 7: [1, 2], 8: [1]}
"""By EXIF orientation; from 5 on rows and columns change places before."""


class UnreadableImage(ValueError):
    """A file that holds no whole image of a sane size."""


def check_channels(channels: int) -> None:
    """Raise a ValueError where images cannot be decoded to so many channels."""
    if channels not in _MODES:
        raise ValueError(f"image files can be read with 1 (grey), 3 (RGB) or 4 (RGBA) channels, not with {channels}")


def decode(data: bytes, channels: int = 3, decoders: Mapping[str, Callable[[], Decoder]] = DECODERS) -> Tensor:
    """The bytes of a file -> (C, H, W) uint8, upright; in memory, the channels of a pixel may lie together.

    EXIF rotation is applied; palettes are looked up, CMYK is converted, 16 bits are scaled to 8. Transparent places are laid
    on white, as a browser shows them, unless 4 channels are asked for.

    Args:
        data: the whole file.
        channels: 1 grey, 3 RGB, 4 RGBA.
        decoders: what may be used instead of Pillow, by the format.

    Raises:
        UnreadableImage: not an image, cut short, or so large that it looks like a decompression bomb.
        ValueError: another number of channels.
    """
    check_channels(channels)
    try:
        with warnings.catch_warnings():
            # Pillow only warns of the smaller bombs, and of broken metadata that does no harm.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as file:
                image = _decode_fast(data, file, _MODES[channels], decoders)
                if image is None:
                    image = _decode_any(file, _MODES[channels])
                return _upright(image, file.getexif().get(_ORIENTATION, 1))
    except UnidentifiedImageError as error:  # its own words are of an object in memory
        raise UnreadableImage("it is of no format that Pillow knows") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow raises SyntaxError for some broken PNG files, and OSError for most else.
        raise UnreadableImage(" ".join(str(error).split()) or type(error).__name__) from error


def _decode_fast(data: bytes, file: Image.Image, mode: str, decoders: Mapping[str, Callable[[], Decoder]]) -> Tensor | None:
    """None where Pillow is to do it; also colour as grey, as a JPEG's own brightness is not quite what Pillow makes of RGB."""
    importer = decoders.get(file.format or "")
    if importer is None or (file.mode, mode) not in (("RGB", "RGB"), ("L", "RGB"), ("L", "L")):
        return None
    decoder = load(importer)
    if decoder is None:
        return None
    try:
        return decoder(data, file).expand(len(mode), -1, -1)
    except (ValueError, RuntimeError):
        return None


def _decode_any(file: Image.Image, mode: str) -> Tensor:
    file.load()
    pixels = np.array(_with_mode(file, mode))
    return torch.from_numpy(pixels).view(*pixels.shape[:2], -1).permute(2, 0, 1)


def _upright(image: Tensor, orientation: int) -> Tensor:
    if orientation in (5, 6, 7, 8):
        image = image.mT
    axes = _MIRRORED_AXES.get(orientation)
    return image.flip(axes) if axes else image


def _with_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip at 255 instead of scaling
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray((values // 257).astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        known = np.isfinite(values)  # elsewhere there is no datum, as in maps and scans
        if not known.any():
            raise UnreadableImage("none of its numbers is finite")
        low, high = float(values[known].min()), float(values[known].max())
        scaled = (np.where(known, values, low) - low) / max(high - low, 1e-12)
        image = Image.fromarray((scaled * 255).round().astype(np.uint8))
    if mode != "RGBA" and (image.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in image.info):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return image.convert(mode)
