import io
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.data.decode import UnreadableImage, decode

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (9, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def hwc(tensor: torch.Tensor) -> np.ndarray:
    return tensor.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_colour_comes_out_as_it_went_in(kind):
    pixels = decode(encoded(Image.fromarray(COLOUR), kind))
    assert pixels.dtype == torch.uint8
    assert np.array_equal(hwc(pixels), COLOUR)


def test_lossless_webp():
    assert np.array_equal(hwc(decode(encoded(Image.fromarray(COLOUR), "WEBP", lossless=True))), COLOUR)


def test_jpeg_is_near():
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 3))
    assert np.abs(hwc(decode(encoded(Image.fromarray(smooth), "JPEG", quality=95))).astype(int) - smooth).max() <= 4


def test_grey_is_repeated_over_three_channels():
    assert np.array_equal(hwc(decode(encoded(Image.fromarray(GREY)))), GREY[..., None].repeat(3, axis=2))


def test_one_channel():
    pixels = decode(encoded(Image.fromarray(GREY)), channels=1)
    assert pixels.shape == (1, 9, 7)
    assert np.array_equal(pixels[0].numpy(), GREY)
    assert decode(encoded(Image.fromarray(COLOUR)), channels=1).shape == (1, 9, 7)


def test_palette_is_looked_up():
    image = Image.fromarray(COLOUR).convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    assert np.array_equal(hwc(decode(encoded(image))), np.asarray(image.convert("RGB")))


def test_one_bit():
    bits = GREY > 127
    assert np.array_equal(hwc(decode(encoded(Image.fromarray(bits))))[..., 0], bits * np.uint8(255))


def test_sixteen_bits_are_scaled_and_not_clipped():
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encoded(Image.fromarray(values), kind), channels=1).flatten().tolist() == [0, 1, 128, 255]


def test_floats_are_stretched_over_their_range():
    values = np.array([[-2.0, 0.0, 2.0]], dtype=np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF"), channels=1).flatten().tolist() == [0, 128, 255]


def test_floats_that_are_not_finite_are_the_least_of_the_others():
    values = np.array([[-2.0, np.nan, 0.0, np.inf, -np.inf, 2.0]], dtype=np.float32)
    assert decode(encoded(Image.fromarray(values), "TIFF"), channels=1).flatten().tolist() == [0, 0, 128, 0, 0, 255]
    with pytest.raises(UnreadableImage, match="none of its numbers is finite"):
        decode(encoded(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "TIFF"), channels=1)


def test_cmyk():
    ink = np.zeros((16, 16, 4), dtype=np.uint8)
    ink[..., 1] = 255  # magenta
    pixels = hwc(decode(encoded(Image.fromarray(ink, "CMYK"), "TIFF")))
    assert np.array_equal(pixels[0, 0], [255, 0, 255])
    pixels = hwc(decode(encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)))
    assert np.abs(pixels[0, 0].astype(int) - [255, 0, 255]).max() <= 2


def test_transparency_is_laid_on_white():
    rgba = np.zeros((2, 2, 4), dtype=np.uint8)
    rgba[0, 0] = (10, 20, 30, 255)
    pixels = hwc(decode(encoded(Image.fromarray(rgba))))
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[1, 1].tolist() == [255, 255, 255]
    grey_alpha = Image.fromarray(np.zeros((2, 2, 2), dtype=np.uint8), "LA")
    assert hwc(decode(encoded(grey_alpha)))[0, 0].tolist() == [255, 255, 255]


def test_transparent_palette_colour():
    image = Image.new("P", (2, 2), 0)
    image.putpalette([200, 0, 0, 0, 200, 0])
    image.putpixel((1, 1), 1)
    pixels = hwc(decode(encoded(image, transparency=0)))
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [0, 200, 0]


def test_four_channels_keep_transparency():
    rgba = RNG.integers(0, 256, (3, 3, 4), dtype=np.uint8)
    assert np.array_equal(hwc(decode(encoded(Image.fromarray(rgba)), channels=4)), rgba)


TURNED = {
    1: COLOUR,
    2: np.fliplr(COLOUR),
    3: np.rot90(COLOUR, 2),
    4: np.flipud(COLOUR),
    5: COLOUR.transpose(1, 0, 2),
    6: np.rot90(COLOUR, -1),
    7: np.rot90(COLOUR, 2).transpose(1, 0, 2),
    8: np.rot90(COLOUR),
}


def exif_with(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    return exif


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_applied(orientation, kind):
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(kind, {})
    pixels = hwc(decode(encoded(Image.fromarray(COLOUR), kind, exif=exif_with(orientation), **lossless)))
    assert pixels.shape == TURNED[orientation].shape
    assert np.abs(pixels.astype(int) - TURNED[orientation]).max() <= (4 if kind == "JPEG" else 0)


def test_orientation_is_also_found_in_xmp():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>6</tiff:Orientation></x:xmpmeta>'
    assert decode(encoded(Image.fromarray(COLOUR), "JPEG", xmp=xmp)).shape == (3, 7, 9)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_damaged_exif_is_refused_or_left_aside(kind):
    data = encoded(Image.fromarray(COLOUR), kind, exif=exif_with(6))
    start = data.index(b"MM\0*")
    shapes = set()
    for place in range(start, data.index(b"maker") + 6):
        for value in (0, 1, 7, 255):
            with suppress(UnreadableImage):
                shapes.add(decode(data[:place] + bytes([value]) + data[place + 1 :]).shape)
    assert shapes == {(3, 7, 9), (3, 9, 7)}


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg", "picture.webp"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_content_counts_and_not_the_name(tmp_path, kind, name):
    from evomask.data.layouts import open_images

    image = Image.fromarray(np.full((9, 7, 3), (200, 100, 50), dtype=np.uint8))
    (tmp_path / name).write_bytes(encoded(image, kind))
    pixels = open_images(tmp_path).image(0)
    assert pixels.shape == (3, 9, 7)
    assert (pixels.flatten(1).float().mean(dim=1) - torch.tensor([200, 100, 50])).abs().max() < 4


def test_broken_files_are_refused():
    whole = encoded(Image.fromarray(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)), "JPEG")
    for data in (whole[: len(whole) // 2], b"", b"these are words", encoded(Image.fromarray(COLOUR))[:40]):
        with pytest.raises(UnreadableImage) as refusal:
            decode(data)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("limit", [40, 100])  # over twice the limit Pillow raises by itself, above it it only warns
def test_decompression_bombs_are_refused(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    for kind in ("PNG", "JPEG", "WEBP"):
        with pytest.raises(UnreadableImage, match="decompression bomb"):
            decode(encoded(Image.new("RGB", (12, 12)), kind))


def test_other_channel_counts_are_refused():
    from evomask.data.layouts import open_images

    with pytest.raises(ValueError, match=r"1 .*3 .*4"):
        open_images("anywhere", channels=5)
    with pytest.raises(ValueError, match=r"1 .*3 .*4 .*not with 2"):
        decode(encoded(Image.fromarray(COLOUR)), channels=2)
