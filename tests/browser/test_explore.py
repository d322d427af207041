"""The page of `evomask explore` in a browser."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ORIGINAL, GROUPS, MASK, ATTENTION, RESTORED = (
    f"#{name}-1 img" for name in ("original", "groups", "mask", "attention", "restored")
)


@pytest.fixture(scope="module")
def address(runs: list[Path], chromium: object) -> Iterator[str]:
    """The page on the two tiny runs."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from evomask.figures.explorer import Explorer
    from evomask.recipes.explore import first_image, load_model
    from evomask.recipes.explore_page import build_page
    from evomask.recipes.explore_server import Server

    explorer = Explorer(load_model)
    page = build_page(explorer, [str(run) for run in runs], explorer.add(first_image()))
    server = Server(page, "127.0.0.1", None)
    yield server.address
    server.close()


@pytest.fixture
def photo() -> dict[str, object]:
    """An image file of red and blue halves, as a browser uploads it."""
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:20, :, 0] = pixels[20:, :, 2] = 200
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"name": "halves.png", "mimeType": "image/png", "buffer": file.getvalue()}


def slide(tab, name: str, key: str) -> None:
    tab.page.locator(f"#{name} input[type=range]").focus()
    tab.page.keyboard.press(key)


def test_sliders_change_the_pictures(tab, address: str) -> None:
    tab.page.goto(address)
    groups, mask, restored = (tab.source(selector) for selector in (GROUPS, MASK, RESTORED))
    attention = tab.source(ATTENTION)
    slide(tab, "depth", "Home")
    groups = tab.wait_for_another(GROUPS, groups)
    tab.page.get_by_text("level 1 of").first.wait_for()
    mask, restored = tab.wait_for_another(MASK, mask), tab.wait_for_another(RESTORED, restored)
    slide(tab, "ratio", "End")
    tab.wait_for_another(MASK, mask)
    tab.page.get_by_text("15 of 16 patches hidden").wait_for()  # 95% of 4 x 4
    assert tab.source(GROUPS) == groups, "the ratio changes no tree"
    assert tab.source(ATTENTION) == attention
    slide(tab, "blocks", "Home")
    tab.wait_for_another(ATTENTION, attention)


def test_an_uploaded_image_is_shown_and_a_text_file_gets_a_message(tab, address: str, photo: dict[str, object]) -> None:
    tab.page.goto(address)
    before = tab.source(ORIGINAL)
    upload = tab.page.locator("#image input[type=file]")
    upload.set_input_files({"name": "notes.png", "mimeType": "image/png", "buffer": b"buy milk"})
    message = tab.page.locator("[role=alert]")
    message.wait_for()
    assert message.inner_text().startswith("notes.png: this is no image that can be read")
    assert tab.source(ORIGINAL) == before

    tab.page.locator("#image button[aria-label='Clear'], #image button[aria-label='Remove this file']").first.click()
    tab.page.locator("#image input[type=file]").set_input_files(photo)
    shown = tab.wait_for_another(ORIGINAL, before)
    picture = np.array(Image.open(io.BytesIO(tab.page.request.get(shown).body())).convert("RGB"))
    assert picture[5, 5, 0] > 150 and picture[-5, 5, 2] > 150, "the halves, in their colours"
    message.wait_for(state="detached")


def test_a_click_asks_another_patch_and_a_second_encoder_stands_below(tab, address: str, runs: list[Path]) -> None:
    tab.page.goto(address)
    attention = tab.source(ATTENTION)
    tab.page.locator(GROUPS).click(position={"x": 8, "y": 8})
    tab.page.get_by_text("row 1, column 1 gives up to").wait_for()
    tab.wait_for_another(ATTENTION, attention)

    assert not tab.page.locator("#groups-2 img").is_visible()
    second = tab.page.locator("#second input")
    second.fill(f"untrained:{runs[0]}")
    second.press("Enter")
    tab.source("#groups-2 img")
    second.fill("timm:no_such_model")
    second.press("Enter")
    tab.page.locator("[role=alert]").wait_for()
    assert "no_such_model" in tab.page.locator("[role=alert]").inner_text()
    assert tab.source(GROUPS), "the first encoder is still there"


def test_all_of_it_is_one_picture_to_download(tab, address: str) -> None:
    tab.page.goto(address)
    tab.source(RESTORED)
    tab.page.locator("#keep").click()
    for ending, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        link = tab.page.locator(f"#kept a[href$='.{ending}']").first
        link.wait_for()
        assert tab.page.request.get(link.get_attribute("href")).body().startswith(magic)
