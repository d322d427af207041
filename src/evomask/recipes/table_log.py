"""What was run for a table: when, where, for how long, and how its loss went."""

import json
import shlex
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

from evomask.engine.metrics import read_metrics
from evomask.engine.run import record_of
from evomask.recipes.commands import COMMANDS, Command

PARTS = 5
"""Of a training, by each of which the loss is summed up."""


def as_markdown(out: Path, commands: Iterable[Command]) -> list[str]:
    """Lines with a table of the commands that have been begun, in the order that they were, and the machines that ran them."""
    ran = _read(out)
    begun = {command.folder: record for command in commands if (record := record_of(command.folder))}
    if not begun:
        return []
    ordered = sorted(begun, key=lambda folder: begun[folder].get("started", ""))
    hours = sum(row["seconds"] for folder in ordered for row in ran.get(str(folder), [])) / 3600
    lines = [
        f"{len(ordered)} commands, {hours:.1f} hours in all. Losses are means over each of {PARTS} equal parts of a training.",
        "",
        "| | begun | minutes | loss |",
        "|---|---|---|---|",
    ]
    for folder in ordered:
        seconds = [row["seconds"] for row in ran.get(str(folder), [])]
        stops = f" (in {len(seconds)} parts)" if len(seconds) > 1 else ""
        started = begun[folder].get("started", "")[:16].replace("T", " ")
        lines.append(f"| {folder.name} | {started} | {sum(seconds) / 60:.1f}{stops} | {_curve(folder)} |")
    machines = dict.fromkeys(_machine(record) for record in begun.values())
    return [*lines, "", f"Machine: {'; or '.join(machines)}."]


def _read(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of OUT/commands.jsonl, by the folder that a command makes or goes on with: its last word."""
    path = out / COMMANDS
    found: dict[str, list[dict[str, Any]]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:  # a full disk or a power cut has left half of it
            continue
        found.setdefault(shlex.split(row["command"])[-1], []).append(row)
    return found


def _curve(folder: Path) -> str:
    losses = [row["loss"] for row in read_metrics(folder) if "loss" in row]  # of a step that was left out there is none
    return " ".join(f"{mean(part):.3g}" for part in _parts(losses))


def _parts(values: Sequence[float]) -> list[Sequence[float]]:
    bounds = [round(number * len(values) / PARTS) for number in range(PARTS + 1)]
    return [values[begin:end] for begin, end in pairwise(bounds) if begin < end]


def _machine(record: dict[str, Any]) -> str:
    versions = record.get("versions", {})
    known = [f"{name} {versions[name]}" for name in ("python", "torch", "torchvision", "timm") if name in versions]
    return ", ".join([record.get("machine", "unknown"), *known])
