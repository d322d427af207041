"""Faster decoders are used where they can be, and give the pixels that Pillow gives, or are refused what Pillow refuses."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.data.codecs import DECODERS, load
from evomask.data.decode import UnreadableImage, decode

RNG = np.random.default_rng(0)
# Coarse and fine structure, of odd height and width: there, chroma has to be scaled up beyond its last row and column.
PICTURE = Image.fromarray(
    (np.kron(RNG.integers(0, 200, (5, 7, 3)), np.ones((9, 11, 1))) + RNG.integers(0, 56, (45, 77, 3))).astype(np.uint8)
)
JPEGS = {
    "4:2:0": {"quality": 75},
    "4:2:2": {"quality": 90, "subsampling": 1},
    "4:4:4": {"quality": 100, "subsampling": 0},
    "coarse": {"quality": 1},
    "progressive": {"quality": 90, "progressive": True},
    "restart markers": {"quality": 90, "restart_marker_blocks": 3},
    "stored as RGB": {"quality": 90, "keep_rgb": True},
    "colour profile": {"quality": 90, "icc_profile": bytes(70_000)},
}


def encoded(kind: str, image: Image.Image = PICTURE, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def need_decoder(kind: str) -> None:
    """The one of WebP need not be installed; those of JPEG come with evomask."""
    if kind == "WEBP":
        pytest.importorskip("torchcodec")


def fast_pixels(kind: str, data: bytes) -> np.ndarray:
    """From the faster decoder itself, so that Pillow cannot step in."""
    decoder = load(DECODERS[kind])
    assert decoder is not None
    with Image.open(io.BytesIO(data)) as file:
        assert file.format == kind
        return decoder(data, file).permute(1, 2, 0).numpy()


def pillow_pixels(data: bytes, mode: str = "RGB") -> np.ndarray:
    with Image.open(io.BytesIO(data)) as file:
        pixels = np.asarray(file.convert(mode))
    return pixels.reshape(*pixels.shape[:2], -1)


@pytest.mark.parametrize("options", JPEGS.values(), ids=JPEGS)
def test_jpeg(options):
    need_decoder("JPEG")
    data = encoded("JPEG", **options)
    assert np.array_equal(fast_pixels("JPEG", data), pillow_pixels(data))
    assert np.array_equal(decode(data).permute(1, 2, 0), pillow_pixels(data))


def test_grey_jpeg():
    need_decoder("JPEG")
    data = encoded("JPEG", PICTURE.convert("L"))
    assert np.array_equal(fast_pixels("JPEG", data), pillow_pixels(data, "L"))
    assert np.array_equal(decode(data, channels=1).permute(1, 2, 0), pillow_pixels(data, "L"))
    assert np.array_equal(decode(data).permute(1, 2, 0), pillow_pixels(data))


def test_several_jpegs_in_a_file():
    need_decoder("MPO")
    data = encoded("MPO", save_all=True, append_images=[PICTURE.rotate(90)])
    assert np.array_equal(fast_pixels("MPO", data), pillow_pixels(data))


@pytest.mark.parametrize("options", [{"quality": 80}, {"quality": 1}, {"lossless": True}], ids=str)
def test_webp(options):
    need_decoder("WEBP")
    data = encoded("WEBP", **options)
    assert np.array_equal(fast_pixels("WEBP", data), pillow_pixels(data))


@pytest.mark.parametrize("mode", ["CMYK", "1", "RGB", "L", "RGBA", "animation"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", DECODERS)
def test_whatever_is_asked_for_what_is_installed_changes_nothing(kind, channels, mode):
    if kind == "WEBP":
        mode = {"CMYK": "RGBX", "1": "P"}.get(mode, mode)
    if mode == "animation":
        data = encoded(kind, save_all=kind != "JPEG", append_images=[PICTURE.rotate(90)])
    else:
        image = PICTURE.convert("RGB" if kind != "WEBP" and mode == "RGBA" else mode)
        data = encoded(kind, image)
    assert torch.equal(decode(data, channels), decode(data, channels, decoders={}))


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("JPEG", {"quality": 90, "xmp": b"<tiff:Orientation>8</tiff:Orientation>"}),
        ("WEBP", {"quality": 80}),
        ("WEBP", {"quality": 80, "xmp": b"<tiff:Orientation>8</tiff:Orientation>"}),
    ],
)
def test_damaged_files_are_taken_or_refused_as_by_pillow(kind, options):
    need_decoder(kind)

    def outcome(data: bytes, decoders) -> bytes | None:
        try:
            return decode(data, 3, decoders).numpy().tobytes()
        except UnreadableImage:
            return None

    whole = encoded(kind, **options)
    rng = np.random.default_rng(1)
    cut = [whole[:length] for length in (*range(1, len(whole), 151), *range(len(whole) - 8, len(whole)))]
    changed = [whole[:place] + rng.bytes(1) + whole[place + 1 :] for place in range(2, len(whole), 37)]
    found = [(outcome(data, DECODERS), outcome(data, {})) for data in (*cut, *changed)]
    assert all(fast == pillow for fast, pillow in found)
    assert {pillow is None for _, pillow in found} == {True, False}


def test_it_is_the_faster_decoder_that_decodes():
    def stand_in():
        return lambda data, file: torch.full((3, file.height, file.width), 7, dtype=torch.uint8)

    assert (decode(encoded("JPEG"), decoders={"JPEG": stand_in}) == 7).all()
    assert not (decode(encoded("PNG"), decoders={"JPEG": stand_in}) == 7).all()
    assert not (decode(encoded("JPEG", PICTURE.convert("CMYK")), decoders={"JPEG": stand_in}) == 7).all()


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_a_library_that_cannot_be_imported_is_done_without(error):
    def importer():
        raise error("not here")

    data = encoded("JPEG")
    assert load(importer) is None
    assert np.array_equal(decode(data, decoders={"JPEG": importer}).permute(1, 2, 0), pillow_pixels(data))


@pytest.mark.parametrize(("kind", "pattern"), [("JPEG", "coco/*/*.jpg"), ("WEBP", "imagenette112/val/*/*.webp")])
def test_photographs(shared_data, kind, pattern):
    need_decoder(kind)
    paths = sorted(shared_data.glob(pattern))[::37]
    assert len(paths) > 5
    for path in paths:
        assert np.array_equal(fast_pixels(kind, path.read_bytes()), pillow_pixels(path.read_bytes()))
