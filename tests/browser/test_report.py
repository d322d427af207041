"""The pages of `evomask report` in a browser: nothing goes wrong, nothing is loaded, sliders change the pictures."""

from pathlib import Path

import pytest

from evomask.cli import main

COVER, GROUPS, RESTORED = "[data-cover] path", "[data-groups] path", "[data-restored]"


def drawn(tab, selector: str) -> list[str | None]:
    """What the elements draw, hidden patches and groups as paths, pictures as sources."""
    return tab.page.locator(selector).evaluate_all("all => all.map(each => each.getAttribute('d') ?? each.getAttribute('src'))")


def move(tab, slider: str, key: str) -> None:
    tab.page.locator(f"#{slider}").focus()
    tab.page.keyboard.press(key)


@pytest.fixture(scope="module")
def comparison(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    page = tmp_path_factory.mktemp("comparison") / "page.html"
    assert main(["report", *map(str, runs), "--out", str(page)]) == 0
    return page


def test_a_report_moves(tab, runs: list[Path]) -> None:
    tab.page.goto((runs[0] / "report.html").as_uri())
    before = [drawn(tab, selector) for selector in (COVER, GROUPS, RESTORED)]
    assert all(before)
    assert tab.page.locator("output[for=stage]").inner_text() == "epoch 3, step 6"

    move(tab, "stage", "Home")
    assert tab.page.locator("output[for=stage]").inner_text() == "before training"
    assert drawn(tab, COVER) != before[0] and drawn(tab, RESTORED) != before[2]
    assert drawn(tab, GROUPS) == before[1], "the trees are those of the last stage"

    move(tab, "depth", "Home")
    assert drawn(tab, GROUPS) != before[1]
    assert tab.page.locator("[data-tree-caption]").first.inner_text().startswith("level 1 of ")
    assert tab.page.url.endswith("#stage=0&depth=0")
    tab.page.reload()  # an address is a view
    assert tab.page.locator("output[for=stage]").inner_text() == "before training"


def test_a_comparison_moves_all_runs_together(tab, comparison: Path) -> None:
    tab.page.goto(comparison.as_uri())
    evolved, random = ('[data-cover^="0-"] path', '[data-cover^="1-"] path')
    last = drawn(tab, evolved), drawn(tab, random)
    assert len(last[0]) == len(last[1]) > 0
    move(tab, "stage", "Home")
    first = drawn(tab, evolved), drawn(tab, random)
    assert first[0] == first[1], "at depth 1 an evolved mask is the random one of the same numbers"
    assert first[1] == last[1] and first[0] != last[0], "random masks stay as they are"
    assert tab.page.locator("output[for=stage]").inner_text() == "0% of training"

    before = drawn(tab, GROUPS)
    move(tab, "depth", "End")
    assert drawn(tab, GROUPS) != before
    assert "masking.strategy" in tab.page.locator("#differences").inner_text()
