import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from evomask.figures import curves, style

METRICS = [{"step": step, "loss": 1 / (1 + step)} for step in range(10)]


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (5, [0, 1, 2])])
def test_any_number_of_channels_becomes_a_colour_picture(channels, shown):
    images = torch.arange(channels, dtype=torch.uint8).view(1, -1, 1, 1).expand(1, -1, 2, 3)
    pictures = style.to_rgb(images)
    assert pictures.shape == (1, 2, 3, 3) and pictures.dtype == np.uint8
    assert pictures[0, 0, 0].tolist() == shown


def test_the_users_settings_neither_matter_nor_change():
    plain = style.figure_svg(curves.loss_curve(METRICS), "loss")
    with matplotlib.rc_context({"axes.facecolor": "red", "axes.grid": False, "font.size": 30}):
        before = dict(matplotlib.rcParams)
        figure = curves.loss_curve(METRICS)
        assert dict(matplotlib.rcParams) == before
        assert figure.axes[0].xaxis.label.get_fontsize() == 9
    assert style.figure_svg(curves.loss_curve(METRICS), "loss") == plain


def test_svg_is_one_element_that_follows_the_page():
    svg = style.figure_svg(curves.loss_curve(METRICS, stages=[3]), "loss")
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg") and "width" not in root.attrib and root.get("viewBox")
    assert "loss" in {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert "currentColor" in svg and "var(--blue)" in svg
    assert style.BLUE.lower() not in svg and style.INK.lower() not in svg
    assert "metadata" not in svg and "DejaVu" not in svg


def test_two_svgs_share_a_page_without_sharing_ids():
    first, second = (style.figure_svg(curves.loss_curve(METRICS, stages=[3]), name) for name in ("a", "b"))
    ids = [set(re.findall(r' id="([^"]*)"', svg)) for svg in (first, second)]
    assert "a-stage-0" in ids[0] and not ids[0] & ids[1]
    for svg, known in zip((first, second), ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]*)', svg)) <= known


@pytest.mark.parametrize("suffix", style.PICTURE_FORMATS)
def test_the_suffix_says_how_a_figure_is_saved(tmp_path, suffix):
    path = tmp_path / "docs" / f"loss{suffix}"
    style.save(curves.loss_curve(METRICS), path, dpi=50)
    if suffix in (".png", ".webp"):
        with Image.open(path) as picture:
            assert picture.format == suffix[1:].upper() and min(picture.size) > 50
    else:
        assert {".svg": b"<svg", ".pdf": b"%PDF"}[suffix] in path.read_bytes()
