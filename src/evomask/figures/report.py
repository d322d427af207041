"""RUN/report.html: one self-contained page about a run. It loads nothing from anywhere and can be sent as a file.

The page is report.html with report.css and report.js put in. A section is a function of the run and a line in SECTIONS.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from evomask.engine.metrics import MONITOR, read_metrics
from evomask.engine.run import write_atomically
from evomask.figures import curves
from evomask.figures.sliders import Stages, hierarchy_slider, read_stages, slider_data, stage_slider
from evomask.figures.style import figure_svg


@dataclass(frozen=True)
class RunFolder:
    """What a run has left in its folder so far."""

    path: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """config.json: command, config, versions, machine."""
        try:
            return json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path} is no run folder: it has no config.json that can be read") from error

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration, flat: {"train.epochs": 300, ...}."""
        return _flat(self.record.get("config", {}))

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl."""
        return read_metrics(self.path)

    @cached_property
    def monitor(self) -> list[dict[str, float]]:
        """The rows of monitor.jsonl."""
        return read_metrics(self.path, MONITOR)

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """results/*.json by name."""
        return {path.stem: json.loads(path.read_text()) for path in sorted((self.path / "results").glob("*.json"))}

    @cached_property
    def stages(self) -> Stages | None:
        """snapshots/, None where there are none yet."""
        mean, std = self.settings.get("data.mean", [0.5]), self.settings.get("data.std", [0.5])
        return read_stages(self.path / "snapshots", mean, std)

    @property
    def name(self) -> str:
        """The recipe, or where there is none the folder."""
        return str(self.settings.get("recipe") or self.path.resolve().name)


def write_report(run: Path) -> Path:
    """Write RUN/report.html from what is in the folder; what is not there yet is left out, with a line that says so.

    Returns:
        The page's path.

    Raises:
        ValueError: the folder is no run.
    """
    folder = RunFolder(run)
    page = Template(_package_file("report.html")).substitute(
        title=escape(folder.name),
        style=_package_file("report.css"),
        script=_package_file("report.js"),
        sections="\n".join(section(folder) for section in SECTIONS),
        data=json.dumps(slider_data(folder.stages) if folder.stages else None, separators=(",", ":")),
    )
    write_atomically(run / "report.html", page)
    return run / "report.html"


def overview(run: RunFolder) -> str:
    """What was run, and how to run it again."""
    record = run.record
    # A record from before the starting time was kept is as old as its file.
    started = record.get("started") or datetime.fromtimestamp((run.path / "config.json").stat().st_mtime).isoformat()
    versions = [f"{name} {number}" for name, number in record.get("versions", {}).items()]
    facts = {
        "Repeat": f"<code>{escape(record.get('command', ''))}</code>",
        "Resume": f"<code>evomask resume {escape(shlex.quote(str(run.path)))}</code>",
        "Started": datetime.fromisoformat(started).strftime("%d %B %Y, %H:%M"),
        "Machine": escape(record.get("machine") or "unknown"),
        "Versions": escape(", ".join([*versions, f"git {record['git']}"] if record.get("git") else versions)),
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return (
        f'<header><p class="eyebrow">evomask run</p><h1>{escape(run.name)}</h1>'
        f'<p class="summary">{escape(_summary(run.settings))}</p>{_tiles(run)}<dl>{rows}</dl></header>'
    )


def _summary(settings: Mapping[str, Any]) -> str:
    """Model, image size, masks and data in one line; of another task what there is of them."""
    phrases = {
        "host.encoder.name": "{}",
        "host.encoder.image_size": "{0[0]} × {0[1]} px",
        "host.encoder.patch_size": "patches of {} px",
        "masking.strategy": "{} masks",
        "masking.ratio": "{:.0%} hidden",
    }
    parts = [phrase.format(settings[name]) for name, phrase in phrases.items() if name in settings]
    if "data.root" in settings:
        parts.append(f"images from {settings['data.root'] or 'the embedded scenes'}")
    return " · ".join(parts)


def _tiles(run: RunFolder) -> str:
    """The few numbers to know first."""
    _, loss = curves.series(run.metrics, "loss")
    if not len(loss):
        return ""
    mean, last = curves.running_mean(loss), run.metrics[-1]
    epochs = run.settings.get("train.epochs", "?")
    tiles = [
        ("loss", f"{mean[-1]:.3f}", f"from {loss[0]:.3f}"),
        ("epochs", f"{int(last['epoch']) + 1}", f"of {epochs}, {int(last['step']) + 1:,} steps"),
    ]
    seconds = _seconds(run)
    if seconds:
        _, speed = curves.series(run.metrics, "images_per_second")
        tiles += [
            ("training", _duration(seconds), "without pauses"),
            ("images a second", f"{np.median(speed):,.0f}", "median"),
        ]
    items = "".join(f"<li><span>{a}</span><strong>{b}</strong><small>{c}</small></li>" for a, b, c in tiles)
    return f'<ul class="tiles">{items}</ul>'


def _seconds(run: RunFolder) -> float:
    """What the steps took together, 0 where that is not known."""
    batch = run.settings.get("train.batch_size")
    step, speed = curves.series(run.metrics, "images_per_second")
    return float((np.diff(step, prepend=-1) * batch / speed).sum()) if batch and len(speed) else 0.0


def results(run: RunFolder) -> str:
    """kNN of the pretrained and the untrained encoder as bars, then all results in a table."""
    if not run.results:
        return _section("results", "Results", _missing("No evaluation yet: <code>evomask evaluate</code> makes one."))
    return _section("results", "Results", _knn_bars(run.results) + _results_table(run.results))


def _knn_bars(found: Mapping[str, dict[str, Any]]) -> str:
    accuracy = {
        label: found[name]["metrics"]["top1"]
        for name, label in (("knn", "pretrained"), ("knn_untrained", "untrained"))
        if name in found
    }
    if not accuracy:
        return ""
    chance = found.get("knn", {}).get("metrics", {}).get("majority")
    bars = "".join(
        f'<div class="bar {label}"><span>{label}</span><div><i style="width:{value:.2f}%"></i></div><b>{value:.1f}%</b></div>'
        for label, value in accuracy.items()
    )
    note = "Accuracy of a k-nearest-neighbour vote in the features of the frozen encoder, on images it was not trained on."
    if chance is not None:
        bars += f'<div class="chance" aria-hidden="true"><i style="left:{chance:.2f}%"></i></div>'
        note += f" The dashed line at {chance:.1f}% is what always naming the commonest class gives."
    return f'<div class="bars">{bars}</div><p class="note">{note}</p>'


def _results_table(found: Mapping[str, dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td>{escape(metric)}</td><td class=number>{value:.4g}</td></tr>"
        for name, result in found.items()
        for metric, value in result["metrics"].items()
        if isinstance(value, int | float)
    )
    return f"<details><summary>All results</summary><table><tbody>{rows}</tbody></table></details>"


def training(run: RunFolder) -> str:
    """Loss and learning rate."""
    if not len(curves.series(run.metrics, "loss")[0]):
        return _section("training", "Training", _missing("No step has been logged yet."))
    steps = [stage.step for stage in run.stages.snapshots] if run.stages else []
    loss = "Loss on the hidden patches, as logged (light) and its running mean."
    loss += " Vertical lines: the stages shown below." if steps else ""
    charts = _chart("loss", loss, curves.loss_curve(run.metrics, steps))
    charts += _chart("rate", "Learning rate", curves.learning_rate_curve(run.metrics))
    return _section("training", "Training", f'<div class="charts">{charts}</div>')


def learning(run: RunFolder) -> str:
    """What was measured of the model while it trained, and what that cost."""
    title = "What it has learnt, as it trained"
    if not run.monitor:
        return _section(
            "learning", title, _missing("Nothing has been measured during training: see <code>--monitor.every</code>.")
        )
    charts = "".join(
        _chart(name, caption, curves.monitor_curve(run.monitor, name, label))
        for name, (label, caption) in MONITORED.items()
        if len(curves.series(run.monitor, name)[0])
    )
    spent, seconds = sum(curves.series(run.monitor, "monitor_seconds")[1]), _seconds(run)
    cost = f"The {len(run.monitor)} looks took {_duration(spent)}"
    cost += f", {spent / seconds:.1%} of what training took." if seconds else "."
    return _section("learning", title, f'<div class="charts">{charts}</div><p class="note">{cost}</p>')


MONITORED = {
    "knn": ("accuracy, %", "kNN accuracy on held-out images: each is classified by the others that are nearest to it."),
    "rankme": ("dimensions", "RankMe: how many dimensions the features use. It needs no labels; a collapse shows as a fall."),
    "attention_distance": ("patches", "How far away patches look, on average, in the attention that masks are made of."),
    "perplexity": ("tokens", "Perplexity of a tokenizer's tokens: how many it uses, were they all alike frequent."),
    "codes_used": ("%", "Share of a tokenizer's tokens that occur at all."),
    "psnr": ("dB", "What is left of images in their tokens: peak signal-to-noise ratio."),
}
"""Measurements of monitor.jsonl: the name of the axis, and what to say below."""


def stages(run: RunFolder) -> str:
    """Masks and reconstructions of the same images, with a slider through training."""
    if run.stages is None:
        return _section("masks", "Masks through training", _missing("No snapshots of this run yet."))
    restores = run.stages.snapshots[-1].reconstruction is not None
    title = "Masks and reconstructions through training" if restores else "Masks through training"
    return _section("masks", title, stage_slider(run.stages))


def hierarchy(run: RunFolder) -> str:
    """Cuts of the trees at the last stage, with a slider through the depths."""
    if run.stages is None:
        return _section("hierarchy", "Hierarchy", _missing("No snapshots of this run yet."))
    return _section("hierarchy", "Hierarchy at several depths", hierarchy_slider(run.stages))


def tree_health(run: RunFolder) -> str:
    """How high the trees are, where they are cut, and how much of an image one group holds."""
    title = "Health of the trees"
    if not len(curves.series(run.metrics, "tree_height")[0]):
        reason = "The masks of this run are not cut from trees." if run.metrics else "No step has been logged yet."
        return _section("trees", title, _missing(reason))
    charts = _chart("height", "Height of the trees, and depth of the cut", curves.tree_curve(run.metrics))
    charts += _chart("group", "Share of the image in the largest group of the cut", curves.group_curve(run.metrics))
    note = (
        "The depth follows the training schedule from single patches up to the root. Balanced trees are low, and "
        "no group swallows the image long before the end."
    )
    return _section("trees", title, f'<p>{note}</p><div class="charts">{charts}</div>')


def configuration(run: RunFolder) -> str:
    """Every value that determines the run."""
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td><code>{escape(json.dumps(value))}</code></td></tr>"
        for name, value in run.settings.items()
    )
    table = f"<details><summary>All {len(run.settings)} values</summary><table><tbody>{rows}</tbody></table></details>"
    return _section("configuration", "Configuration", table)


SECTIONS: tuple[Callable[[RunFolder], str], ...] = (
    overview,
    results,
    training,
    learning,
    stages,
    hierarchy,
    tree_health,
    configuration,
)
"""The page from top to bottom."""


def _section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}"><h2>{title}</h2>{body}</section>'


def _missing(text: str) -> str:
    return f'<p class="missing">{text}</p>'


def _chart(name: str, caption: str, figure: Figure) -> str:
    svg = figure_svg(figure, name).replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def _duration(seconds: float) -> str:
    minutes, hours = round(seconds / 60), round(seconds / 3600)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{hours} h"


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _package_file(name: str) -> str:
    return files("evomask.figures").joinpath(name).read_text(encoding="utf-8")
