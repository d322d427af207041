"""One self-contained page about several runs: their curves over one another, what differs between them, and the same images'
masks and trees side by side.
"""

import json
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path, PurePath
from typing import Any

from evomask.analysis.tree_health import health_by_stage
from evomask.engine.run import make_folder, write_atomically
from evomask.figures import curves
from evomask.figures.page import chart, charts, duration, missing, page, section
from evomask.figures.report import MONITORED
from evomask.figures.run_folder import RunFolder
from evomask.figures.sliders import MOST_IMAGES, framed, original_pictures, slider, slider_data
from evomask.figures.style import LINES

MOST_RUNS = len(LINES)


def write_comparison(runs: Sequence[Path], out: Path) -> Path:
    """Write a page about several runs; what one of them does not have is left out, with a line that says so.

    Args:
        runs: their folders.
        out: the page.

    Raises:
        ValueError: less than two runs or too many, one of them twice or no run, or `out` exists or its folder cannot be made.
    """
    if not 2 <= len(runs) <= MOST_RUNS:
        raise ValueError(f"2 to {MOST_RUNS} runs are compared on one page, not {len(runs)}")
    if len({run.resolve() for run in runs}) < len(runs):
        raise ValueError("a run is named twice")
    if out.exists():
        raise ValueError(f"{out} exists: choose another --out")
    folders = {name: RunFolder(run) for name, run in zip(names_of(runs), runs, strict=True)}
    for folder in folders.values():
        folder.record  # noqa: B018 - no run, then nothing is written
    shown = {name: folder for name, folder in folders.items() if folder.stages is not None}
    data = {
        "runs": [
            slider_data(folder.stages, restored=False) | {"epochs": _epochs(folder)}
            for folder in shown.values()
            if folder.stages is not None
        ],
        "positions": _positions(list(shown.values())),
    }
    parts = (overview(folders), differences(folders), results(folders), training(folders), learning(folders))
    parts += (trees(folders), masks(shown), hierarchies(shown))
    make_folder(out.parent)
    write_atomically(out, page(" and ".join(folders), parts, data if shown else None, "comparison.js"))
    return out


def names_of(runs: Sequence[Path]) -> list[str]:
    """Short names: the paths without what they all begin with."""
    paths = [run.resolve() for run in runs]
    common = Path(os.path.commonpath([path.parent for path in paths]))
    return [str(path.relative_to(common)) for path in paths]


def overview(runs: dict[str, RunFolder]) -> str:
    """The runs and the numbers to know first."""
    rows = ""
    for (name, run), (colour, _) in zip(runs.items(), LINES, strict=False):
        _, loss = curves.series(run.metrics, "loss")
        last = run.metrics[-1] if run.metrics else None
        epochs = f"{int(last['epoch']) + 1} of {run.loop.get('epochs', '?')}" if last else "none"
        cells = [
            f'<i class="key" style="background:{colour}"></i>{escape(name)}',
            escape(str(run.settings.get("recipe", ""))),
            epochs,
            f"{curves.running_mean(loss)[-1]:.3f}" if len(loss) else "",
            duration(run.seconds) if run.seconds else "",
        ]
        rows += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    head = "".join(f"<th scope=col>{title}</th>" for title in ("Run", "Recipe", "Epochs", "Loss", "Training"))
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    commands = "".join(
        f"<div><dt>{escape(name)}</dt><dd><code>{escape(run.record.get('command', ''))}</code></dd></div>"
        for name, run in runs.items()
    )
    table += f"<details><summary>How to repeat them</summary><dl>{commands}</dl></details>"
    return (
        f'<header><p class="eyebrow">evomask comparison</p><h1>{escape(", ".join(runs))}</h1>'
        f'<p class="summary">{len(runs)} runs. A loss under other masks is another task\'s.</p>{table}</header>'
    )


def differences(runs: dict[str, RunFolder]) -> str:
    """The settings, versions and machines in which the runs differ."""
    facts = {
        name: run.settings
        | {f"versions.{library}": number for library, number in run.record.get("versions", {}).items()}
        | {key: run.record[key] for key in ("git", "machine") if key in run.record}
        for name, run in runs.items()
    }
    settings = list(dict.fromkeys(setting for each in facts.values() for setting in each))
    differing = [setting for setting in settings if len({json.dumps(each.get(setting)) for each in facts.values()}) > 1]
    if not differing:
        return section("differences", "What differs", missing("Nothing: these runs are of one configuration."))
    rows = {setting: [_text(each.get(setting)) for each in facts.values()] for setting in differing}
    same = f'<p class="note">{len(settings) - len(differing)} further settings are the same.</p>'
    return section("differences", "What differs", _table(list(runs), rows) + same)


def results(runs: dict[str, RunFolder]) -> str:
    """Probe results, a row a metric."""
    rows: dict[str, list[str]] = {}
    for number, run in enumerate(runs.values()):
        for name, result in run.results.items():
            for metric, value in result["metrics"].items():
                if isinstance(value, int | float):
                    rows.setdefault(f"{name}: {metric}", [""] * len(runs))[number] = f"{value:.4g}"
    if not rows:
        hint = "No evaluation yet: <code>evomask evaluate TASK --encoder RUN --out RUN/results/TASK</code> makes one."
        return section("results", "Results", missing(hint))
    return section("results", "Results", _table(list(runs), rows, "number"))


def training(runs: dict[str, RunFolder]) -> str:
    """Losses and rates."""
    metrics = {name: run.metrics for name, run in runs.items()}
    drawn = _curves(metrics, {"loss": ("loss", "Loss, running mean."), "lr": ("learning rate", "Learning rate.")})
    return section("training", "Training", drawn or missing("No step has been logged yet."))


def learning(runs: dict[str, RunFolder]) -> str:
    """What was measured of the models while they trained."""
    drawn = _curves({name: run.monitor for name, run in runs.items()}, MONITORED)
    return section("learning", "What they have learnt, as they trained", drawn or missing("Nothing has been measured."))


def trees(runs: dict[str, RunFolder]) -> str:
    """The trees of the images below, whether masks are cut from them or not."""
    rows = {name: health_by_stage(run.stages.snapshots) for name, run in runs.items() if run.stages is not None}
    measured = {
        "balance": ("merges above a patch, over log₂ N", "Balance of the trees of the images below: 1 at best."),
        "largest_group_50": ("share of the image", "Largest group of those trees' cuts at half the height."),
    }
    return section("trees", "Health of the trees", _curves(rows, measured) or missing("No snapshots of these runs yet."))


def masks(runs: dict[str, RunFolder]) -> str:
    """A row an image, a column a run, with a slider through training."""
    if not runs:
        return section("masks", "Masks through training", missing("No snapshots of these runs yet."))
    positions = _positions(list(runs.values()))
    last = len(positions) - 1
    control = slider("stage", "Stage of training", highest=last, step=1, value=last)
    note = "<p>What the encoders see of the same images, each at the stage of its own training that is nearest.</p>"
    return section("masks", "Masks through training", note + control + _side_by_side(runs, "cover", "mask"))


def hierarchies(runs: dict[str, RunFolder]) -> str:
    """Cuts of the trees at the last stage, with a slider through the depths."""
    if not runs:
        return section("hierarchy", "Hierarchy at several depths", missing("No snapshots of these runs yet."))
    control = slider("depth", "Depth of the cut", highest=95, step=5, value=50)
    note = "<p>The trees of each model's attention at its last stage.</p>"
    return section("hierarchy", "Hierarchy at several depths", note + control + _side_by_side(runs, "groups", "tree", "grey"))


def _side_by_side(runs: dict[str, RunFolder], layer: str, words: str, look: str = "") -> str:
    """The images that all runs have, or where they have none in common, each run its own."""
    by_run: list[dict[str, tuple[int, str]]] = []
    for run in runs.values():
        assert run.stages is not None
        uris = original_pictures(run.stages)
        by_run.append({name: (image, uris[image]) for image, name in enumerate(run.stages.names)})
    shared = [name for name in by_run[0] if all(name in each for each in by_run)]
    rows = [[each[name] for each in by_run] for name in shared]
    if not rows:
        rows = [list(each) for each in zip(*(list(each.values()) for each in by_run), strict=False)]
    labels = shared or [""] * len(rows)
    groups = ""
    for label, row in zip(labels[:MOST_IMAGES], rows, strict=False):
        cells = ""
        for number, ((image, uri), (name, run)) in enumerate(zip(row, runs.items(), strict=True)):
            assert run.stages is not None
            place = f"{number}-{image}"
            alt = escape(f"{PurePath(label).name} {name}", quote=True)
            pictured = framed(uri, alt, run.stages.layer(layer, place))
            texts = f'<span class="name">{escape(name)}</span><span data-{words}-caption="{place}"></span>'
            cells += f'<figure class="{look}">{pictured}<figcaption>{texts}</figcaption></figure>'
        groups += f"<div>{cells}</div>"
    missing_words = "" if shared else missing("The runs have no image in common: each shows its own.")
    return f'{missing_words}<div class="cards beside" style="--runs:{len(runs)}">{groups}</div>'


def _positions(runs: list[RunFolder]) -> list[float]:
    """The shares of training that the slider stops at: those of the run with the most stages."""
    shares = [[stage.epoch / _epochs(run) for stage in run.stages.snapshots] for run in runs if run.stages is not None]
    return max(shares, key=len, default=[])


def _epochs(run: RunFolder) -> int:
    assert run.stages is not None
    return max(1, run.loop.get("epochs", run.stages.snapshots[-1].epoch))


def _curves(rows: dict[str, list[dict[str, float]]], measured: dict[str, tuple[str, str]]) -> str:
    """A chart for each of `measured` that a run has values of; empty where there is none."""
    drawn = [
        chart(name, caption, curves.compared_curve(rows, name, label))
        for name, (label, caption) in measured.items()
        if any(len(curves.series(each, name)[0]) for each in rows.values())
    ]
    return charts(drawn) if drawn else ""


def _table(columns: list[str], rows: dict[str, list[str]], kind: str = "") -> str:
    head = "".join(f'<th scope=col class="{kind}">{escape(name)}</th>' for name in columns)
    body = ""
    for name, cells in rows.items():
        line = "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell in cells)
        body += f"<tr><th scope=row>{escape(name)}</th>{line}</tr>"
    return f'<div class="wide"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value)
