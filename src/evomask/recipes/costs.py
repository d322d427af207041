"""Section V-E: what evolved masks take of a pretraining step, beside what the paper reports."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from evomask.benchmarks.comparison import Row, circumstances
from evomask.benchmarks.overhead import WITH_EVOLVED, OverheadConfig, compare_with_evolved
from evomask.engine.distributed import pick_device
from evomask.engine.run import make_folder
from evomask.recipes.table_text import check_place, row_of, write_figures

COSTS = "costs"
TITLE = "what evolved masks take of a step (Section V-E)"

IMAGES = {"paper": 256, "mini": 64, "micro": 16}
"""A step, by scale. The model is ViT-S with MAE's decoder at 224 px at each of them."""

REPORTED = {"masks, time": 8.1, "attention, time": 7.9, "tree, time": 0.2, "masks, memory": 1.3}
"""By the paper, in percent of a step; of which model, it does not say."""


def reproduce_costs(scale: str, out: Path, turns: int = 5, device: str = "auto", json_file: Path | None = None) -> Path:
    """Take steps with evolved and with random masks in turns; returns OUT/costs-SCALE.md, with the same as csv beside it.

    Args:
        scale: a key of IMAGES.
        out: the folder, made where it is not there.
        turns: over which medians are taken.
        device: "auto", "cpu", "cuda".
        json_file: to write the rows of the csv to, too.

    Raises:
        ValueError: there is no such device, less than one turn, the folder cannot be made, or `json_file` has none or is
            another file.
    """
    if json_file is not None:
        check_place(json_file)
    config = OverheadConfig(batch_size=IMAGES[scale], turns=turns, device=device)
    machine = _machine(pick_device(device))
    make_folder(out)
    comparison = compare_with_evolved(config)
    shares = shares_of_a_step({row.name: row for row in comparison.rows})
    command = f"evomask reproduce {COSTS} --scale {scale} --turns {turns} --device {device}"
    lines = [f"# {COSTS}, {scale}: {TITLE}", "", f"| % of a step | paper | {scale} |", "|---|---|---|"]
    for name, share in shares.items():
        found = "not measured" if share is None else f"{share.median:.3g} ({share.least:.3g} to {share.most:.3g})"
        lines.append(f"| {name} | {REPORTED[name]} | {found} |")
    lines += [
        "",
        f"{comparison.title}. Medians, least and most of {turns} turns. Masks: what a step takes longer than one with random"
        " masks. Attention, and the tree with its cut and the choice of patches: each by itself. Memory, on a GPU: the most"
        " that either of the two needs beyond what was there before, of what a step does.",
        "",
        f"Machine: {machine}.",
        "",
        f"Command: `{command}`",
        "",
    ]
    rows = [
        row_of(name, "% of a step", REPORTED[name], None, share and share.median, command) for name, share in shares.items()
    ]
    return write_figures(out / f"{COSTS}-{scale}.md", "\n".join(lines), rows, json_file)


class Share(NamedTuple):
    """Percent of a step with evolved masks, over the turns."""

    median: float
    least: float
    most: float


def shares_of_a_step(rows: Mapping[str, Row]) -> dict[str, Share | None]:
    """By the names of REPORTED; None: it was not measured, as memory is not without a GPU.

    Args:
        rows: by name, with ratios to the step with evolved masks.
    """
    evolved, random, attention, tree = (rows[name] for name in WITH_EVOLVED)
    peaks = [row.peak_mib for row in (evolved, attention, tree) if row.peak_mib is not None]
    memory = 100 * max(peaks[1:]) / peaks[0] if peaks else None
    return {
        "masks, time": Share(100 * (1 - random.ratio), 100 * (1 - random.most), 100 * (1 - random.least)),
        "attention, time": Share(100 * attention.ratio, 100 * attention.least, 100 * attention.most),
        "tree, time": Share(100 * tree.ratio, 100 * tree.least, 100 * tree.most),
        "masks, memory": None if memory is None else Share(memory, memory, memory),
    }


def _machine(device: torch.device) -> str:
    found = circumstances()
    versions = ", ".join(f"{name} {found['versions'][name]}" for name in ("torch", "timm"))
    gpu = f", {found['gpu']}" if device.type == "cuda" else ""
    return f"{found['machine']}, {found['cores']} cores, {found['threads']} threads{gpu}, python {found['python']}, {versions}"
