"""The report's two sliders, through the stages of training and through the depths of the hierarchy.

The pictures are plain HTML. What moves with a slider, hidden patches and groups, is drawn over them by drawing.js
from the compact data made here.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from matplotlib.colors import to_hex
from PIL import Image
from torch import Tensor

from evomask.analysis.snapshot import Snapshot, load_images, load_snapshots
from evomask.figures.hierarchy import node_places
from evomask.figures.reconstruction import denormalise
from evomask.figures.style import COVERED, GROUP_COLOURS, to_rgb

MOST_STAGES = 13
MOST_IMAGES = 8
_LONGEST_SIDE = 224
_COLOURS = 64


@dataclass(frozen=True, eq=False)
class Stages:
    """The snapshots of a run that go on the page.

    Attributes:
        images: (n, C, H, W) uint8.
        names: one an image.
        snapshots: in the order of training, at most `MOST_STAGES`.
        mean: of the pixels in [0, 1], one a channel or one for all, as the run normalises them.
        std: likewise.
    """

    images: Tensor
    names: list[str]
    snapshots: list[Snapshot]
    mean: Sequence[float]
    std: Sequence[float]

    def layer(self, kind: str, image: int | str) -> str:
        """An empty drawing over a picture, in units of patches, for drawing.js to fill."""
        rows, columns = self.snapshots[-1].grid
        size = f'viewBox="0 0 {columns} {rows}" preserveAspectRatio="none"'
        return f'<svg {size} aria-hidden="true"><g data-{kind}="{image}"></g></svg>'


def read_stages(folder: Path, mean: Sequence[float], std: Sequence[float]) -> Stages | None:
    """Read RUN/snapshots; None where there is nothing yet."""
    snapshots = load_snapshots(folder, MOST_STAGES)
    if not snapshots:
        return None
    images, names = load_images(folder / "images.safetensors")
    return Stages(images[:MOST_IMAGES], names[:MOST_IMAGES], snapshots, mean, std)


def stage_slider(stages: Stages) -> str:
    """A card an image: the original, what the encoder sees, what is restored."""
    last = len(stages.snapshots) - 1
    restored = _restored(stages, stages.snapshots[last])
    cards = []
    for image, (uri, name) in enumerate(zip(original_pictures(stages), stages.names, strict=True)):
        label = escape(PurePath(name).name)
        pictures = framed(uri, label)
        pictures += framed(uri, f"{label}, hidden patches in grey", stages.layer("cover", image))
        if restored:
            pictures += framed(restored[image], f"{label}, restored", mark=f' data-restored="{image}"')
        title = f'<span class="name" title="{escape(name)}">{label}</span><span data-mask-caption="{image}"></span>'
        cards.append(f'<figure><div class="frames">{pictures}</div><figcaption>{title}</figcaption></figure>')
    intro = "The same images and the same random numbers at every stage: the original, and what the encoder sees."
    if restored:
        intro += " Last, what the model restores; if its loss ignores a patch's brightness and contrast, the true ones."
    control = slider("stage", "Stage of training", highest=last, step=1, value=last)
    return f'<p>{intro}</p>{control}<div class="cards triples">{"".join(cards)}</div>'


def hierarchy_slider(stages: Stages) -> str:
    """A card an image: its groups at the depth of the slider."""
    cards = []
    for image, (uri, name) in enumerate(zip(original_pictures(stages), stages.names, strict=True)):
        alt = f"{escape(PurePath(name).name)}, groups in colour"
        caption = f'<figcaption><span data-tree-caption="{image}"></span></figcaption>'
        cards.append(f'<figure class="grey">{framed(uri, alt, stages.layer("groups", image))}{caption}</figure>')
    intro = (
        "The tree that the model's attention makes of each image, at the last stage, cut at one depth: single patches "
        "at 0% of the height, then ever larger groups. Groups that are close in the tree have similar colours."
    )
    control = slider("depth", "Depth of the cut", highest=95, step=5, value=50)
    return f'<p>{intro}</p>{control}<div class="cards">{"".join(cards)}</div>'


def slider_data(stages: Stages, restored: bool = True) -> dict[str, Any]:
    """What the scripts draw from; node numbers and levels are those of `Hierarchy`. `restored`: with what a host restores."""
    last = stages.snapshots[-1]
    places_BM = node_places(last.hierarchy) / (last.hierarchy.patches - 1)
    trees = zip(last.hierarchy.parent.tolist(), last.hierarchy.level.tolist(), places_BM, strict=True)
    return {
        "grid": last.grid,
        "covered": COVERED,
        "colours": [to_hex(GROUP_COLOURS(place)) for place in np.linspace(0, 1, _COLOURS)],
        "stages": [
            {
                "title": "before training" if stage.step == 0 else f"epoch {stage.epoch}, step {stage.step:,}",
                "masked": ["".join("01"[hidden] for hidden in row) for row in stage.masked.tolist()],
                "depth": None if stage.depth is None else stage.depth.tolist(),
                "height": stage.height.tolist(),
                "epoch": stage.epoch,
                "restored": _restored(stages, stage) if restored else None,
            }
            for stage in stages.snapshots
        ],
        "trees": [
            {"parent": parent, "level": level, "colour": (place * (_COLOURS - 1)).round().astype(int).tolist()}
            for parent, level, place in list(trees)[:MOST_IMAGES]
        ],
    }


def original_pictures(stages: Stages) -> list[str]:
    """The images as data URIs."""
    return [_webp(picture) for picture in to_rgb(stages.images)]


def _restored(stages: Stages, stage: Snapshot) -> list[str] | None:
    if stage.reconstruction is None:
        return None
    images = denormalise(stage.reconstruction[:MOST_IMAGES], stages.mean, stages.std)
    return [_webp(picture) for picture in to_rgb(images)]


def _webp(picture: np.ndarray) -> str:
    """(H, W, 3) uint8 -> a data URI, at most 224 px on a side."""
    image = Image.fromarray(picture)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85, method=6)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def framed(uri: str, alt: str, layer: str = "", mark: str = "") -> str:
    """An image with a layer over it; `alt` is html."""
    return f'<div class="frame"><img src="{uri}" alt="{alt}"{mark}>{layer}</div>'


def slider(name: str, label: str, highest: int, step: int, value: int) -> str:
    """A slider from 0, for `startSliders` of drawing.js."""
    return (
        f'<div class="control"><label for="{name}">{label}</label>'
        f'<input type="range" id="{name}" min="0" max="{highest}" step="{step}" value="{value}" autocomplete="off">'
        f'<output for="{name}"></output></div>'
    )
