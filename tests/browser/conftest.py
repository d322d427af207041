"""Pages in a real browser, headless. Skipped, and that is said, where Chromium or playwright is not installed."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.engine.pretrain import DataConfig, MaskingConfig, MonitorConfig, PretrainConfig
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig
from evomask.recipes.launch import pretrain

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
PATIENCE = 120_000
"""Milliseconds that something may take on a machine that has much else to do; nothing is measured."""

FLAGS = [
    *("--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]


@dataclass
class Tab:
    """A page, and what went wrong on it: console errors, exceptions, requests to anywhere but this machine."""

    page: Any
    wrong: list[str] = field(default_factory=list)

    def source(self, selector: str) -> str:
        """Of an image, once it is there."""
        found = self.page.locator(selector)
        found.wait_for(state="attached", timeout=PATIENCE)
        return found.get_attribute("src")

    def wait_for_another(self, selector: str, source: str) -> str:
        """The image's source, once it is another one."""
        self.page.wait_for_function(
            "([selector, source]) => { const image = document.querySelector(selector);"
            " return image && image.src && image.getAttribute('src') !== source; }",
            arg=[selector, source],
            timeout=PATIENCE,
        )
        return self.source(selector)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """The browser."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium here: Debian's package is called chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=FLAGS, chromium_sandbox=False, timeout=PATIENCE)
        yield browser
        browser.close()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def tab(chromium: Any, request: pytest.FixtureRequest) -> Iterator[Tab]:
    """A fresh page of each size; at the end nothing must have gone wrong on it."""
    context = chromium.new_context(viewport=request.param)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    tab = Tab(page)
    local = ("file:", "data:", "blob:", "http://127.0.0.1")
    page.on("console", lambda message: message.type == "error" and tab.wrong.append(message.text))
    page.on("pageerror", lambda error: tab.wrong.append(str(error)))
    page.on("request", lambda request: request.url.startswith(local) or tab.wrong.append(f"asked for {request.url}"))
    page.on("response", lambda response: response.status < 400 or tab.wrong.append(f"{response.status} {response.url}"))
    yield tab
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out at the side"
    context.close()
    assert tab.wrong == []


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tiny runs, with evolved and with random masks."""
    vit = ViTConfig(image_size=(32, 32), patch_size=8, width=32, depth=2, heads=2)
    folder, made = tmp_path_factory.mktemp("runs"), []
    for masks in ("evolved", "random"):
        config = PretrainConfig(
            recipe="tiny",
            host=MAEConfig(encoder=vit, decoder_width=16, decoder_depth=1, decoder_heads=2),
            masking=MaskingConfig(strategy=masks),
            data=DataConfig(scenes=16, workers=0),
            optim=OptimConfig(warmup_epochs=0),
            train=TrainConfig(epochs=3, batch_size=8, device="cpu", log_every=1),
            monitor=MonitorConfig(images=8, every=1),
        )
        made.append(pretrain(config, out=folder / masks))
    assert torch.is_grad_enabled()
    return made
