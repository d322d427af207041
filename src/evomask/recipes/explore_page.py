"""The explorer's page, of gradio: controls on the left, a row of pictures for each encoder on the right."""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from matplotlib.figure import Figure

from evomask.figures.explorer import Explorer, MaskChoice, TreeChoice
from evomask.figures.style import picture_table, save, styled
from evomask.masking.affinity import AFFINITIES

KEPT_SECONDS = (3_600, 86_400)
"""How often pictures that the page has shown are looked over, and how old they are when they are deleted."""

PICTURES = {
    "original": "Image: click a patch",
    "groups": "Groups of its tree",
    "mask": "Mask",
    "attention": "Where it looks",
    "restored": "What is restored",
}
"""Of a row, by name: what stands above."""

LAST: dict[str, Any] = {"show_progress": "hidden", "trigger_mode": "always_last", "concurrency_limit": 1}
"""Of several changes while something is drawn, the last one counts."""

CSS = """
footer { display: none !important; }
h1 { font-size: 1.5rem; margin: 0; }
.html-container { padding: 0 !important; }
.moved { position: sticky; top: 0; z-index: 5; background: var(--body-background-fill); padding: 6px 0; }
.status { color: #b3261e; font-weight: 600; margin: 0; }
.dark .status { color: #ff8a80; }
.words, .above { margin: 0; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; font-size: 0.9rem; opacity: 0.8; }
.named { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
.panel { gap: 6px !important; margin-bottom: 22px; }
.pictures { display: grid !important; grid-template-columns: repeat(2, 1fr); gap: 10px !important; }
@media (min-width: 1000px) { .pictures { grid-template-columns: repeat(5, 1fr); } }
.pictures .column { gap: 4px !important; }
.pictures .icon-button-wrapper { opacity: 0; transition: opacity 0.15s; }
.pictures .column:hover .icon-button-wrapper, .pictures .icon-button-wrapper:focus-within { opacity: 1; }
@media (hover: none) { .pictures .icon-button-wrapper { opacity: 1; } }
"""


@dataclass(frozen=True, eq=False)
class Panel:
    """The row of an encoder: all of it, its name, its pictures by name, and the last one's title, and a line below."""

    whole: Any
    name: Any
    pictures: dict[str, Any]
    restored_title: Any
    words: Any

    @property
    def parts(self) -> list[Any]:
        """What `draw` draws anew."""
        return [self.whole, self.name, *list(self.pictures.values())[:-1], self.words]


@dataclass(frozen=True)
class Wanted:
    """What the controls say, in their order on the page."""

    image: str
    place: tuple[float, float]
    first: str | None
    second: str | None
    depth: float
    ratio: float
    seed: float | None
    blocks: float
    affinity: str
    linkage: Any

    @property
    def encoders(self) -> list[str]:
        """One, or two to compare; an empty field is none."""
        return [spec.strip() for spec in (self.first, self.second) if spec and spec.strip()]

    def tree(self, encoder: str) -> TreeChoice:
        """What decides on the tree."""
        return TreeChoice(encoder, int(self.blocks), self.affinity, self.linkage)

    @property
    def mask(self) -> MaskChoice:
        """What decides on the mask."""
        return MaskChoice(self.depth / 100, self.ratio / 100, int(self.seed or 0))


def build_page(explorer: Explorer, encoders: Sequence[str], image: str, second: str = "") -> gr.Blocks:
    """The page.

    Args:
        explorer: what draws.
        encoders: specs to choose from, at least one; others can be typed in.
        image: the name of the one to begin with.
        second: the spec to compare the first one with, or none.
    """
    with gr.Blocks(title="evomask explorer", analytics_enabled=False, fill_width=True, delete_cache=KEPT_SECONDS) as page:
        gr.HTML("<h1>evomask explorer</h1>")
        shown, place = gr.State(image), gr.State((0.5, 0.5))
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                file = gr.File(label="Image", show_label=False, type="filepath", height=120, elem_id="image")
                first = _choice(
                    encoders, encoders[0], "Encoder", "first", "A run, an export, weights, timm:NAME, untrained:RECIPE"
                )
                other = _choice(["", *encoders], second, "Compare with", "second", "Empty: nothing")
                blocks = gr.Slider(1, 24, 6, step=1, label="Over so many blocks, or all", elem_id="blocks")
                affinity = gr.Radio(list(AFFINITIES), value="attention", label="Affinity", elem_id="affinity")
                linkage = gr.Radio(["weighted", "average"], value="weighted", label="Linkage", elem_id="linkage")
                seed = gr.Number(0, label="Random numbers", precision=0, minimum=0, elem_id="seed")
                keep = gr.Button("Make a picture of this", elem_id="keep")
                kept = gr.File(label="To download", visible=False, interactive=False, elem_id="kept")
            with gr.Column(scale=4, min_width=320):
                with gr.Row(elem_classes="moved"):
                    depth = gr.Slider(0, 99, 50, step=1, label="Depth, % of the height", min_width=150, elem_id="depth")
                    ratio = gr.Slider(5, 95, 75, step=1, label="Hidden patches, %", min_width=150, elem_id="ratio")
                status = gr.HTML("", elem_id="status")
                panels = [_panel(number, shown=number == 1 or bool(second)) for number in (1, 2)]

        kept_in = Path(tempfile.mkdtemp(prefix="evomask-"))
        atexit.register(shutil.rmtree, kept_in, ignore_errors=True)
        controls = [shown, place, first, other, depth, ratio, seed, blocks, affinity, linkage]
        parts = [part for panel in panels for part in panel.parts]
        restored = [part for panel in panels for part in (panel.restored_title, panel.pictures["restored"])]
        chosen = [shown.change, first.change, other.change, blocks.change, affinity.change, linkage.change]
        draws = partial(gr.on, inputs=controls, outputs=[status, *parts], concurrency_id="draw", **LAST)
        for drawn in (
            draws([page.load, *chosen], partial(draw, explorer, True)),
            draws([depth.change, ratio.change, seed.change], partial(draw, explorer, False)),
        ):
            drawn.then(partial(restore, explorer), controls, restored, concurrency_id="restore", **LAST)
        draws([place.change], partial(draw, explorer, True))
        file.upload(partial(take, explorer), file, [shown, status], show_progress="hidden")
        for number, panel in enumerate(panels):
            for picture in panel.pictures.values():
                picture.select(_clicked(explorer, number), controls, place, show_progress="hidden")
        keep.click(partial(keep_picture, explorer, kept_in), controls, [kept, status], concurrency_id="draw")
    return page


def take(explorer: Explorer, path: str) -> tuple[Any, str]:
    """An uploaded file -> the name of the image, and what to say of it."""
    try:
        return explorer.add(Path(path).read_bytes()), ""
    except ValueError as error:
        return gr.skip(), _status(f"{Path(path).name}: {error}")


def draw(explorer: Explorer, afresh: bool, *controls: Any) -> list[Any]:
    """Status and rows as the controls say; `afresh` where more has changed than the mask: image and attention too.

    What is restored is left to `restore`, which takes longer and follows: at the same time, it would hold these pictures up.
    """
    wanted = Wanted(*controls)
    status, parts = "" if wanted.encoders else _status("name an encoder"), []
    for number in (0, 1):
        if number >= len(wanted.encoders):
            parts += [gr.update(visible=False), *[gr.skip()] * (len(PICTURES) + 1)]
            continue
        encoder = wanted.encoders[number]
        try:
            parts += _row(explorer, afresh, wanted, encoder)
        except (ValueError, OSError) as error:
            status = _status(str(error))
            parts += [gr.update(visible=True), _named(encoder), *[None] * (len(PICTURES) - 1), ""]
    return [status, *parts]


def _row(explorer: Explorer, afresh: bool, wanted: Wanted, encoder: str) -> list[Any]:
    tree = wanted.tree(encoder)
    groups, of_groups = explorer.partition(wanted.image, tree, wanted.mask.depth)
    mask, of_mask = explorer.masked(wanted.image, tree, wanted.mask)
    dotted, seen, of_attention = explorer.attention(wanted.image, tree, wanted.place)
    pictures = [dotted, groups, mask, seen] if afresh else [gr.skip(), groups, mask, gr.skip()]
    text = f'<p class="words">{" · ".join(map(escape, (of_groups, of_mask, of_attention)))}</p>'
    return [gr.update(visible=True), _named(encoder), *pictures, text]


def restore(explorer: Explorer, *controls: Any) -> list[Any]:
    """What each encoder's host makes of the hidden patches; nothing where there is no host."""
    wanted, restored = Wanted(*controls), []
    for encoder in wanted.encoders:
        try:
            picture, why = explorer.restored(wanted.image, wanted.tree(encoder), wanted.mask)
            restored += [_above(PICTURES["restored"] if picture is not None else f"Not restored: {why}"), picture]
        except (ValueError, OSError):  # `draw` says it
            restored += [gr.skip(), None]
    return restored + [gr.skip()] * (4 - len(restored))


def keep_picture(explorer: Explorer, kept_in: Path, *controls: Any) -> tuple[Any, str]:
    """All pictures on one sheet, as png and pdf, to download."""
    wanted, rows = Wanted(*controls), {}
    try:
        for encoder in wanted.encoders:
            tree = wanted.tree(encoder)
            dotted, seen, _ = explorer.attention(wanted.image, tree, wanted.place)
            groups, mask = (
                explorer.partition(wanted.image, tree, wanted.mask.depth)[0],
                explorer.masked(wanted.image, tree, wanted.mask)[0],
            )
            rows[encoder] = [dotted, groups, mask, seen, explorer.restored(wanted.image, tree, wanted.mask)[0]]
        if not rows:
            raise ValueError("name an encoder")
    except (ValueError, OSError) as error:
        return gr.skip(), _status(str(error))
    figure = sheet(rows)
    paths = [kept_in / f"evomask.{ending}" for ending in ("png", "pdf")]
    for path in paths:
        save(figure, path)
    return gr.update(value=[str(path) for path in paths], visible=True), ""


@styled
def sheet(rows: dict[str, list[Any]]) -> Figure:
    """A row of pictures an encoder, as on the page; None where there is no picture."""
    height, width, _ = next(iter(rows.values()))[0].shape
    figure, axes = picture_table(len(rows), len(PICTURES), (height, width), cell=2.2)
    for ax, title in zip(axes[0], ("image", "groups", "mask", "attention", "restored"), strict=True):
        ax.set_title(title)
    for line, (encoder, pictures) in zip(axes, rows.items(), strict=True):
        line[0].text(0, -0.03, encoder, transform=line[0].transAxes, va="top", fontsize=7)
        for ax, picture in zip(line, pictures, strict=True):
            if picture is not None:
                ax.imshow(picture)
    return figure


def _clicked(explorer: Explorer, number: int) -> Callable[..., tuple[float, float]]:
    """What a click on a picture of a row does: (x, y) in pixels -> shares of height and width."""

    def place_of(event: gr.SelectData, *controls: Any) -> tuple[float, float]:  # told by its type
        wanted = Wanted(*controls)
        height, width = explorer.size(wanted.image, wanted.encoders[number])
        x, y = event.index
        return y / height, x / width

    return place_of


def _choice(known: Sequence[str], value: str, label: str, name: str, info: str) -> gr.Dropdown:
    return gr.Dropdown(list(known), value=value, label=label, info=info, allow_custom_value=True, elem_id=name)


def _panel(number: int, shown: bool) -> Panel:
    pictures, titles = {}, {}
    with gr.Column(visible=shown, elem_classes="panel") as whole:
        name = gr.HTML(padding=False)
        with gr.Row(elem_classes="pictures"):
            for kind, title in PICTURES.items():
                with gr.Column(min_width=150):
                    titles[kind] = gr.HTML(_above(title), padding=False, elem_id=f"{kind}-title-{number}")
                    pictures[kind] = gr.Image(
                        format="png",
                        interactive=False,
                        show_label=False,
                        buttons=["download", "fullscreen"],
                        elem_id=f"{kind}-{number}",
                        alt_text=title,
                    )
        words = gr.HTML(padding=False, elem_id=f"words-{number}")
    return Panel(whole, name, pictures, titles["restored"], words)


def _named(encoder: str) -> str:
    return f'<p class="named">{escape(encoder)}</p>'


def _above(title: str) -> str:
    return f'<p class="above">{escape(title)}</p>'


def _status(message: str) -> str:
    return f'<p class="status" role="alert">{escape(message)}</p>'
