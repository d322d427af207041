"""How long the explorer takes from the key that moves the depth to the new pictures, in a headless Chromium.

    python benchmarks/explorer.py

A ViT-S at 224 px with MAE's decoder, untrained: times do not depend on the weights. Of each picture the median and the range
over the turns: groups and mask, which a change of depth decides on, and what is restored, which follows as the host computes
it. Beside them what the same takes in Python alone, and what a new image costs, which does ask the encoder and builds a tree.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import sync_playwright

from evomask.benchmarks.comparison import circumstances
from evomask.data.scenes import Scenes
from evomask.figures.explorer import Explorer, MaskChoice, TreeChoice
from evomask.recipes.explore import as_png, first_image, load_model
from evomask.recipes.explore_page import build_page
from evomask.recipes.explore_server import Server

FLAGS = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
SHOWN = """([selector, source]) => {
    const image = document.querySelector(selector);
    return image && image.getAttribute('src') !== source && image.complete;
}"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="untrained:vit_small_mae")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--chromium", type=Path, default=Path("/usr/bin/chromium"))
    arguments = parser.parse_args()
    explorer = Explorer(load_model)
    image = explorer.add(first_image())
    rows = in_python(explorer, image, arguments.encoder, arguments.turns)
    image = explorer.add(first_image())  # the others may have taken its place
    server = Server(build_page(explorer, [arguments.encoder], image), "127.0.0.1", None)
    rows |= in_the_browser(server.address, arguments.turns, arguments.chromium)
    print(f"{'':44} ms, median (range) · of which this process computed")
    for name, turns in rows.items():
        passed, computed = zip(*turns, strict=True)
        spread = f"({min(passed):.0f} to {max(passed):.0f})"
        print(f"{name:44} {statistics.median(passed):5.0f} {spread:16} · {statistics.median(computed):4.0f}")
    print(json.dumps(circumstances()))


Times = list[tuple[float, float]]
"""Milliseconds of each turn: that passed, and that this process, which serves the page, computed. Where other programs want the
cores, the first is the longer.
"""


def in_python(explorer: Explorer, image: str, encoder: str, turns: int) -> dict[str, Times]:
    """Without a page."""
    tree = TreeChoice(encoder)

    def change(turn: int) -> None:
        depth = turn % 97 / 100
        explorer.partition(image, tree, depth)
        explorer.masked(image, tree, MaskChoice(depth=depth))

    def another_image(turn: int) -> None:
        scene = Scenes((224, 224), turns + 1, split="val").image(turn)
        explorer.partition(explorer.add(as_png(scene)), tree, 0.5)

    return {
        "a change of depth, in Python": timed(change, turns),
        "what is restored, in Python": timed(
            lambda turn: explorer.restored(image, tree, MaskChoice(depth=turn % 97 / 100)), turns
        ),
        "a new image, in Python": timed(another_image, turns),
    }


def timed(work: Callable[[int], object], turns: int) -> Times:
    """Each turn, after one that is not counted."""
    taken = []
    for turn in range(turns + 1):
        start = now()
        work(turn)
        taken.append(since(start))
    return taken[1:]


def now() -> tuple[float, float]:
    """Seconds on both clocks."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Milliseconds on both clocks."""
    passed, computed = (1e3 * (end - begin) for begin, end in zip(start, now(), strict=True))
    return passed, computed


def in_the_browser(address: str, turns: int, chromium: Path) -> dict[str, Times]:
    """From a key on the slider to the picture on the screen."""
    pictures = {"groups": "#groups-1 img", "mask": "#mask-1 img", "restored": "#restored-1 img"}
    taken: dict[str, Times] = {f"a change of depth, in the browser: {name}": [] for name in pictures}
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS, chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        for selector in pictures.values():
            page.wait_for_selector(selector, timeout=120_000)
        slider = page.locator("#depth input[type=range]")
        slider.focus()
        for turn in range(turns + 1):
            sources = {name: page.get_attribute(selector, "src") for name, selector in pictures.items()}
            start = now()
            page.keyboard.press("PageUp" if turn % 2 else "PageDown")  # a tenth of the slider
            for (name, selector), times in zip(pictures.items(), taken.values(), strict=True):
                page.wait_for_function(SHOWN, arg=[selector, sources[name]], polling=5, timeout=60_000)
                if turn > 0:
                    times.append(since(start))
            page.wait_for_timeout(200)
        browser.close()
    return taken


if __name__ == "__main__":
    main()
