"""One look for all figures: colours that colour-blind readers tell apart (Okabe and Ito, 2008), one font, few lines.

Figures are made without pyplot, so nothing is kept globally, no window is opened, and they can be made in any thread.
"""

import io
import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.colors import to_rgb as rgb_of
from matplotlib.figure import Figure
from torch import Tensor

ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILLION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
INK, FAINT = "#1F2328", "#8C959F"
COVERED = "#8B9098"
"""The colour of a hidden patch."""

GROUP_COLOURS = LinearSegmentedColormap.from_list("groups", [VERMILLION, ORANGE, YELLOW, GREEN, SKY, BLUE, PURPLE], N=256)
"""Colours of groups, by their place in the dendrogram from left (0) to right (1): relatives look alike."""

LINES = ((BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "P"), (INK, "X"), (FAINT, "*"))
"""Colours and markers of lines that stand for different models, told apart in print too."""

P = ParamSpec("P")

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names of classes and runs may have a $
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "white",
}


def head_colours(heads: int) -> np.ndarray:
    """(heads, 3) in [0, 1], a colour a head: those of Okabe and Ito, and where there are more heads, shades between."""
    distinct = (ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE)
    if heads <= len(distinct):
        return np.array([rgb_of(colour) for colour in distinct[:heads]])
    return GROUP_COLOURS(np.linspace(0, 1, heads))[:, :3]


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draw in the style above whatever the user's own matplotlib settings are, and leave those untouched."""

    @wraps(draw)
    def draw_styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return draw_styled


def picture_table(rows: int, columns: int, grid: tuple[int, int], cell: float = 1.5) -> tuple[Figure, np.ndarray]:
    """A figure for rows x columns pictures of one shape, `cell` inches wide, and its axes (rows, columns)."""
    height = cell * grid[0] / grid[1]
    figure = Figure(figsize=(columns * (cell + 0.06), rows * (height + 0.26) + 0.4), layout="compressed")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(w_pad=0.03, h_pad=0.03, wspace=0.01, hspace=0.01)  # pyright: ignore[reportCallIssue]
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    return figure, axes


def draw_picture(ax: Axes, picture: np.ndarray, grid: tuple[int, int]) -> None:
    """Show (height, width, 3) pixels, a patch as the unit: patch (row, column) begins at x = column, y = row."""
    ax.imshow(picture, extent=(0, grid[1], grid[0], 0), interpolation="lanczos")


def caption(ax: Axes, text: str) -> None:
    """A small line under a picture."""
    ax.text(0.5, -0.03, text, transform=ax.transAxes, ha="center", va="top", fontsize=7, color=INK)


def to_rgb(images: Tensor) -> np.ndarray:
    """(n, C, H, W) uint8 -> (n, H, W, 3): the first three channels, or the first as grey where there are fewer."""
    channels = [0, 1, 2] if images.shape[1] >= 3 else [0, 0, 0]
    return images[:, channels].permute(0, 2, 3, 1).cpu().numpy()


def figure_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element for a web page: text stays text, colours follow the page's light and dark mode.

    Args:
        figure: any figure of this package.
        name: prefixes the element's ids, so that several figures fit on one page.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"font-family: [^;\"]*;", "", svg)
    svg = re.sub(r'( id="|xlink:href="#|url\(#)', rf"\g<1>{name}-", svg)
    page_colours = {INK: "currentColor", BLUE: "var(--blue)", VERMILLION: "var(--vermillion)", GREEN: "var(--green)"}
    for colour, page_colour in page_colours.items():
        svg = svg.replace(colour.lower(), page_colour)
    return svg


PICTURE_FORMATS = (".png", ".webp", ".svg", ".pdf")


def save(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write the figure to a file; its suffix, one of PICTURE_FORMATS, says how."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=dpi, bbox_inches="tight", pad_inches=0.05)
