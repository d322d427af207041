"""The table of what has been reproduced: the paper's figures beside those measured, and how each was made."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

from evomask.analysis.confidence import spread
from evomask.engine.run import write_atomically
from evomask.recipes import table_log
from evomask.recipes.paper import PaperRun
from evomask.recipes.scales import SCALES
from evomask.recipes.table_plan import Cell, Wanted
from evomask.recipes.tables import TABLES, Column, Row

COLUMNS: tuple[str, ...] = ("row", "column", "paper", "seed", "measured", "commands")
"""Of the csv and the json: a row a figure of a seed."""

Figure = dict[str, str | float | None]
"""Its values by COLUMNS."""


def write_table(wanted: Wanted, cells: Sequence[Cell], json_file: Path | None = None) -> Path:
    """Write what is measured so far as OUT/TABLE-SCALE.md and .csv, and as json where wanted; returns the first."""
    rows = []
    for cell in cells:
        commands = " && ".join(command.text for command in (*cell.needed, cell.evaluation))
        rows.append(row_of(cell.row.title, cell.column.title, cell.reported, cell.seed, cell.measured(), commands))
    path = wanted.out / f"{wanted.table}-{wanted.scale}.md"
    return write_figures(path, as_markdown(wanted, cells), rows, json_file)


def row_of(*values: str | float | None) -> Figure:
    """A figure, by COLUMNS."""
    return dict(zip(COLUMNS, values, strict=True))


def write_figures(path: Path, text: str, figures: Sequence[Figure], json_file: Path | None) -> Path:
    """Write the text to `path`, the figures to a csv beside it, and where wanted to a json; returns `path`."""
    file = io.StringIO()
    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(figures)
    write_atomically(path, text)
    write_atomically(path.with_suffix(".csv"), file.getvalue())
    if json_file is not None:
        write_atomically(json_file, json.dumps(figures, indent=2) + "\n")
    return path


def check_place(json_file: Path) -> None:
    """Before any work: the same command may be given again, so it overwrites figures, but nothing else.

    Raises:
        ValueError: the file's folder is not there, or it is there and holds something else.
    """
    if not json_file.parent.is_dir():
        raise ValueError(f"there is no folder {json_file.parent}: make it, or choose another --json")
    if json_file.exists() and not _holds_figures(json_file):
        raise ValueError(f"{json_file} exists, and is no table of figures: choose another --json")


def _holds_figures(json_file: Path) -> bool:
    try:
        rows = json.loads(json_file.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(rows, list) and all(isinstance(row, dict) and set(row) == set(COLUMNS) for row in rows)


def as_markdown(wanted: Wanted, cells: Sequence[Cell]) -> str:
    """The paper's figure beside the measured one, differences paired by seed, on what it was measured, and every command."""
    table, scale = TABLES[wanted.table], SCALES[wanted.scale]
    columns = scale.columns(table)
    found: dict[str, dict[Column, dict[int, float]]] = {}
    for cell in cells:
        of_row = found.setdefault(cell.row.title, {})
        if (figure := cell.measured()) is not None:
            of_row.setdefault(cell.column, {})[cell.seed] = figure
    rows = {row.title: row for row in table.rows if row.title in found}
    heads = [f"{column.title}: paper | {wanted.scale}" for column in columns]
    lines = [f"# {wanted.table}, {wanted.scale}: {table.title}", "", f"| | {' | '.join(heads)} |"]
    lines.append("|---" * (1 + 2 * len(columns)) + "|")
    for title, row in rows.items():
        reported = [row.reported[table.columns.index(column)] for column in columns]
        measured = [list(found[title].get(column, {}).values()) for column in columns]
        lines.append(_line(title, reported, [_figure(values, wanted) for values in measured]))
    for title, row in rows.items():
        if row.against in rows:
            other = rows[row.against]
            gaps = [_less(row, other, table.columns.index(column)) for column in columns]
            pairs = [_paired(found[title].get(column, {}), found[other.title].get(column, {})) for column in columns]
            texts = [_figure(values, wanted, "+") for values in pairs]
            lines.append(_line(f"{title} less {other.title}", gaps, texts, "+"))
    seeds = ", ".join(map(str, wanted.seeds))
    done = sum(len(of_seeds) for of_row in found.values() for of_seeds in of_row.values())
    evaluations = dict.fromkeys(column.evaluation for column in columns)
    lines += [
        "",
        f"Seeds {seeds}; {done} of {len(cells)} figures are there. ± is half of a 95% confidence interval over seeds (Student's"
        " t), of differences paired by seed.",
        "",
        f"At this scale: {scale.about}. " + " ".join(f"{name}: {scale.evaluations[name].about}." for name in evaluations),
    ]
    here = {title: encoder for title, row in rows.items() if isinstance(encoder := scale.encoder(row), PaperRun)}
    stand_ins = [f"{title} is {encoder.name}" for title, encoder in here.items() if encoder != rows[title].encoder]
    if stand_ins:
        lines += ["", f"At this scale {', '.join(stand_ins)}."]
    absent = [row.title for row in table.rows if row.title not in rows]
    if absent:
        lines += ["", f"Not at this scale: {', '.join(absent)}."]
    needed = dict.fromkeys(command for cell in cells for command in (*cell.needed, cell.evaluation))
    if log := table_log.as_markdown(wanted.out, needed):
        lines += ["", "## Runs", "", *log]
    lines += ["", "## Commands", "", f"Those of seed {wanted.seeds[0]}:", "", "```"]
    first = [cell for cell in cells if cell.seed == wanted.seeds[0]]
    lines += dict.fromkeys(command.text for cell in first for command in (*cell.needed, cell.evaluation))
    return "\n".join([*lines, "```", ""])


def _figure(values: Sequence[float], wanted: Wanted, sign: str = "") -> str:
    """Mean and interval; where seeds are still to come, of how many it is."""
    there = "" if len(values) == len(wanted.seeds) else f" ({len(values)} of {len(wanted.seeds)} seeds)"
    return spread(values, sign) + there if values else ""


def _line(title: str, reported: Sequence[float | None], measured: Sequence[str], sign: str = "") -> str:
    figures = ["" if value is None else f"{value:{sign}.2f}" for value in reported]
    cells = [cell for pair in zip(figures, measured, strict=True) for cell in pair]
    return f"| {title} | {' | '.join(cells)} |"


def _less(row: Row, other: Row, number: int) -> float | None:
    mine, theirs = row.reported[number], other.reported[number]
    return None if mine is None or theirs is None else mine - theirs


def _paired(mine: dict[int, float], theirs: dict[int, float]) -> list[float]:
    return [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
