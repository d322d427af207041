"""The parts that self-contained html pages are put together from; they load nothing from anywhere."""

import json
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from matplotlib.figure import Figure

from evomask.figures.style import figure_svg


def page(title: str, sections: Iterable[str], data: Any, script: str) -> str:
    """The whole page: report.html with report.css, drawing.js and a script of its own put in.

    Args:
        title: plain text.
        sections: html.
        data: what the scripts draw from, as JSON; None where there is nothing to draw.
        script: the name of a file of this package.
    """
    return Template(_package_file("report.html")).substitute(
        title=escape(title),
        style=_package_file("report.css"),
        script=_package_file("drawing.js") + _package_file(script),
        sections="\n".join(sections),
        # Inside a script nothing is escaped: no text may end it.
        data=json.dumps(data, separators=(",", ":")).replace("</", "<\\/"),
    )


def section(name: str, title: str, body: str) -> str:
    """A part of the page; `name` is its address, `title` and `body` are html."""
    return f'<section id="{name}"><h2>{title}</h2>{body}</section>'


def missing(text: str) -> str:
    """A line about what is not there (yet); html."""
    return f'<p class="missing">{text}</p>'


def chart(name: str, caption: str, figure: Figure) -> str:
    """A figure with words below it, which also stand for it where it cannot be seen. `name` is used once on a page."""
    svg = figure_svg(figure, name).replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def charts(items: Iterable[str]) -> str:
    """Charts beside each other, as the page is wide."""
    return f'<div class="charts">{"".join(items)}</div>'


def duration(seconds: float) -> str:
    """In the unit that is read most easily."""
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{hours} h"


def _package_file(name: str) -> str:
    return files("evomask.figures").joinpath(name).read_text(encoding="utf-8")
