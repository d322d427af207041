"""RUN/report.html: one self-contained page about a run. It loads nothing from anywhere and can be sent as a file.

A section is a function of the run and a line in SECTIONS.
"""

import json
import shlex
from collections.abc import Callable, Mapping
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from evomask.analysis.tree_health import health_by_stage
from evomask.engine.run import write_atomically
from evomask.figures import curves
from evomask.figures.page import chart, charts, duration, missing, page, section
from evomask.figures.run_folder import RunFolder
from evomask.figures.sliders import hierarchy_slider, slider_data, stage_slider
from evomask.figures.tree_health import balance_curve, largest_group_curves


def write_report(run: Path) -> Path:
    """Write RUN/report.html from what is in the folder; what is not there yet is left out, with a line that says so.

    Returns:
        The page's path.

    Raises:
        ValueError: the folder is no run.
    """
    folder = RunFolder(run)
    data = slider_data(folder.stages) if folder.stages else None
    write_atomically(run / "report.html", page(folder.name, [part(folder) for part in SECTIONS], data, "report.js"))
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
    epochs = run.loop.get("epochs", "?")
    tiles = [
        ("loss", f"{mean[-1]:.3f}", f"from {loss[0]:.3f}"),
        ("epochs", f"{int(last['epoch']) + 1}", f"of {epochs}, {int(last['step']) + 1:,} steps"),
    ]
    if run.seconds:
        _, speed = curves.series(run.metrics, "images_per_second")
        speed = speed / run.masks_per_image
        tiles += [
            ("training", duration(run.seconds), "without pauses"),
            ("images a second", f"{np.median(speed):,.0f}", "median"),
        ]
    items = "".join(f"<li><span>{a}</span><strong>{b}</strong><small>{c}</small></li>" for a, b, c in tiles)
    return f'<ul class="tiles">{items}</ul>'


def results(run: RunFolder) -> str:
    """kNN of the pretrained and the untrained encoder as bars, then all results in a table."""
    if not run.results:
        return section("results", "Results", missing("No evaluation yet: <code>evomask evaluate</code> makes one."))
    return section("results", "Results", _knn_bars(run.results) + _results_table(run.results))


def _knn_bars(found: Mapping[str, dict[str, Any]]) -> str:
    accuracy = {
        label: top1
        for name, label in (("knn", "pretrained"), ("knn_untrained", "untrained"))
        if isinstance(top1 := found.get(name, {}).get("metrics", {}).get("top1"), int | float)
    }
    if not accuracy:
        return ""
    chance = found.get("knn", {}).get("metrics", {}).get("majority")
    bars = "".join(
        f'<div class="bar {label}"><span>{label}</span><div><i style="width:{value:.2f}%"></i></div><b>{value:.1f}%</b></div>'
        for label, value in accuracy.items()
    )
    note = "Accuracy of a k-nearest-neighbour vote in the features of the frozen encoder, on images it was not trained on."
    if isinstance(chance, int | float):
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
        reason = "No step has had a finite loss." if run.metrics else "No step has been logged yet."
        return section("training", "Training", missing(reason))
    steps = [stage.step for stage in run.stages.snapshots] if run.stages else []
    hidden = " on the hidden patches" if "masking.strategy" in run.settings else ""
    loss = f"Loss{hidden}, as logged (light) and its running mean."
    loss += " Vertical lines: the stages shown below." if steps else ""
    drawn = [
        chart("loss", loss, curves.loss_curve(run.metrics, steps)),
        chart("rate", "Learning rate", curves.learning_rate_curve(run.metrics)),
    ]
    return section("training", "Training", charts(drawn))


def learning(run: RunFolder) -> str:
    """What was measured of the model while it trained, and what that cost."""
    title = "What it has learnt, as it trained"
    if not run.monitor:
        return section(
            "learning", title, missing("Nothing has been measured during training: see <code>--monitor.every</code>.")
        )
    drawn = [
        chart(name, caption, curves.monitor_curve(run.monitor, name, label))
        for name, (label, caption) in MONITORED.items()
        if len(curves.series(run.monitor, name)[0])
    ]
    return section("learning", title, charts(drawn))


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
        return section("masks", "Masks through training", missing("No snapshots of this run yet."))
    restores = run.stages.snapshots[-1].reconstruction is not None
    title = "Masks and reconstructions through training" if restores else "Masks through training"
    return section("masks", title, stage_slider(run.stages))


def hierarchy(run: RunFolder) -> str:
    """Cuts of the trees at the last stage, with a slider through the depths."""
    if run.stages is None:
        return section("hierarchy", "Hierarchy", missing("No snapshots of this run yet."))
    return section("hierarchy", "Hierarchy at several depths", hierarchy_slider(run.stages))


def tree_health(run: RunFolder) -> str:
    """How high the trees are, where they are cut, and how much of an image one group holds."""
    title = "Health of the trees"
    health = []
    if run.stages is not None:
        rows = health_by_stage(run.stages.snapshots)
        balance = "Of the images above: merges between a patch and the root, over those in a balanced tree."
        groups = "Of the images above: share of the image in the largest group, at three depths."
        health = [chart("balance", balance, balance_curve(rows)), chart("groups", groups, largest_group_curves(rows))]
    if not len(curves.series(run.metrics, "tree_height")[0]):
        reason = "The masks of this run are not cut from trees." if run.metrics else "No step has been logged yet."
        return section("trees", title, missing(reason) + charts(health))
    drawn = [
        chart("height", "Height of the trees, and depth of the cut", curves.tree_curve(run.metrics)),
        chart("group", "Share of the image in the largest group of the cut", curves.group_curve(run.metrics)),
    ]
    note = (
        "The depth follows the training schedule from single patches up to the root. Balanced trees are low, and "
        "no group swallows the image long before the end."
    )
    return section("trees", title, f"<p>{note}</p>{charts(drawn + health)}")


def cost(run: RunFolder) -> str:
    """What the run took in time and on the disk."""
    title = "Cost"
    if not run.seconds:
        return section("cost", title, missing("No step has been timed yet."))
    steps = int(run.metrics[-1]["step"]) + 1
    images = steps * run.loop["batch_size"] // run.masks_per_image
    weights = sum(path.stat().st_size for path in (run.path / "checkpoints").rglob("*") if path.is_file())
    facts = {
        "Training": f"{duration(run.seconds)} without pauses",
        "A step": f"{1e3 * run.seconds / steps:,.0f} ms, mean of {steps:,}",
        "Images": f"{images:,}, every pass counted",
        "Looks": f"{len(run.monitor)} took {duration(run.looks_seconds)}, {run.looks_seconds / run.seconds:.1%} of training",
        "Checkpoints": f"{weights / 2**20:,.0f} MiB",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    note = "What of a step goes to attention, trees and the choice of patches: <code>evomask bench overhead</code>."
    return section("cost", title, f'<dl>{rows}</dl><p class="note">{note}</p>')


def configuration(run: RunFolder) -> str:
    """Every value that determines the run."""
    rows = "".join(
        f"<tr><th scope=row>{escape(name)}</th><td><code>{escape(json.dumps(value))}</code></td></tr>"
        for name, value in run.settings.items()
    )
    table = f"<details><summary>All {len(run.settings)} values</summary><table><tbody>{rows}</tbody></table></details>"
    return section("configuration", "Configuration", table)


SECTIONS: tuple[Callable[[RunFolder], str], ...] = (
    overview,
    results,
    training,
    learning,
    stages,
    hierarchy,
    tree_health,
    cost,
    configuration,
)
"""The page from top to bottom."""
