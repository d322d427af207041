"""Do trees come to follow what is in an image as a model is pretrained? Their agreement with labels, stage by stage.

    python benchmarks/trees.py --runs results/micro/evolved-* results/micro/random-* --out results/trees \
        --labels scenes camvid=camvid/images/val,camvid/annotations/val,11 \
            coco=coco/val2017,coco/annotations/instances_val2017.json

A run is named MASKS-SEED, as those of benchmarks/pretraining.py, and its stages are its checkpoints (`--train.save-minutes 2.5
--train.keep 20` leaves some), before the first its initial weights. Each is measured as `evomask evaluate hierarchy` does, on
each set of labels (`scenes` are the embedded ones) and with each affinity. What is measured is kept in
OUT/trees.jsonl and not measured again, so that the same command may be given until all runs are there.

The tables: purity at the beginning, at a third and two thirds of the training, and at its end, means over seeds with the half
width of a 95% confidence interval (Student's t); between two checkpoints the value is interpolated. OUT/NAME.webp: the curves.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from evomask.analysis.confidence import spread
from evomask.analysis.label_agreement import label_agreement, patch_labels
from evomask.analysis.plain_affinities import PLAIN_AFFINITIES
from evomask.data.coco_masks import CocoMasks
from evomask.data.image_masks import ImageMaskFolders, SceneMasks
from evomask.data.labelled import fit
from evomask.engine.pretrain import DataConfig, PretrainConfig, normalise
from evomask.engine.run import read_run
from evomask.figures.agreement import Curve, agreement_curves
from evomask.figures.style import save
from evomask.masking import Hierarchy, build_hierarchy
from evomask.masking.affinity import AFFINITIES
from evomask.recipes.evaluation import encoder_of
from evomask.tasks.hierarchy import HierarchyConfig

STAGES = (0.0, 1 / 3, 2 / 3, 1.0)
BASELINES = {"colour_and_position": "colour and position", "position": "position", "colour": "colour", "chance": "chance"}
Row = dict[str, Any]


def main() -> None:
    """Measure what is not measured yet, then print the tables and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", nargs="+", default=["scenes"], help="scenes, or NAME=IMAGES,MASKS[,IGNORED]")
    parser.add_argument("--affinities", nargs="+", default=list(AFFINITIES))
    parser.add_argument("--count", type=int, default=101)
    parser.add_argument("--measure", default="purity", choices=("purity", "covering", "best_rand"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "trees.jsonl"
    rows: list[Row] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {key_of(row) for row in rows}
    for run in arguments.runs:
        if not (run / "result.json").exists():
            print(f"{run} is not finished: left out")
            continue
        for name, labels in label_sets(arguments.labels).items():
            for row in measure(run, name, labels, arguments, known):
                rows.append(row)
                with file.open("a") as log:
                    log.write(json.dumps(row) + "\n")
    for name in dict.fromkeys(row["labels"] for row in rows):
        mine = [row for row in rows if row["labels"] == name]
        print(f"\n{name}, {arguments.measure}, {mine[0]['metrics']['images']} images\n\n{table(mine, arguments.measure)}")
        save(curves(mine, arguments.measure), arguments.out / f"{name}.webp", dpi=100)


def label_sets(given: list[str]) -> dict[str, dict[str, Any]]:
    """Options of `HierarchyConfig` by name."""
    sets = {}
    for text in given:
        name, given_more, rest = text.partition("=")
        if not given_more:
            sets[name] = {}
            continue
        images, masks, *ignored = rest.split(",")
        sets[name] = {"images": Path(images), "masks": Path(masks), "ignored": tuple(map(int, ignored))}
    return sets


def key_of(row: Row) -> tuple[Any, ...]:
    """What is measured once."""
    return tuple(row[name] for name in ("run", "step", "labels", "affinity"))


@dataclass(frozen=True, eq=False)
class LabelSet:
    """Images of a set of labels, in the size of the encoders, read once for all of them.

    Attributes:
        images: (n, C, H, W) normalised.
        labels: (n, N), of patches.
        baselines: of trees that no model has a part in.
    """

    images: Tensor
    labels: Tensor
    baselines: dict[str, float]


@cache
def read_labels(size: tuple[int, int], grid: tuple[int, int], count: int, options: tuple[tuple[str, Any], ...]) -> LabelSet:
    """As `evaluate_hierarchy` reads them, of encoders that normalise as ImageNet's."""
    config = HierarchyConfig(count=count, **dict(options))
    if config.images is None or config.masks is None:
        source: Any = SceneMasks(size, count)
    elif config.masks.suffix == ".json":
        source = CocoMasks(config.images, config.masks)
    else:
        source = ImageMaskFolders(config.images, config.masks, config.ignored)
    count = min(count, len(source))
    chosen = [number * len(source) // count for number in range(count)]
    images = normalise(torch.stack([fit(source.image(index), size) for index in chosen]), DataConfig.mean, DataConfig.std)
    masks = torch.stack([fit(source.mask(index).unsqueeze(0), size, sharp=True)[0] for index in chosen])
    labels = patch_labels(masks, grid)
    baselines: dict[str, float] = {}
    for name, affinity in PLAIN_AFFINITIES.items():
        baselines |= agreement(build_hierarchy(affinity(images, grid)), labels, f"{name}_")
    return LabelSet(images, labels, baselines)


def agreement(trees: Hierarchy, labels: Tensor, prefix: str = "") -> dict[str, float]:
    """As in result.json."""
    return {f"{prefix}{name}": value for name, value in asdict(label_agreement(trees, labels)).items()}


@torch.no_grad()
def measure(run: Path, name: str, labels: dict[str, Any], arguments: argparse.Namespace, known: set[tuple[Any, ...]]):
    """Yield a row for each stage and affinity of a run that is not known."""
    config = read_run(run, PretrainConfig)
    checkpoints = {int(path.name.removeprefix("step_")): str(path) for path in sorted((run / "checkpoints").glob("step_*"))}
    total = max(checkpoints)
    for step, spec in {0: f"untrained:{run}", **checkpoints}.items():
        rows: list[Row] = [
            {"run": run.name, "step": step, "labels": name, "affinity": affinity} for affinity in arguments.affinities
        ]
        rows = [row for row in rows if key_of(row) not in known]
        if not rows:
            continue
        encoder = encoder_of(spec)
        found = read_labels(encoder.image_size, encoder.tap.grid, arguments.count, tuple(labels.items()))
        parts = [encoder.tap.by_block(part, config.host.attention_blocks).mean(dim=1) for part in found.images.split(32)]
        attention = torch.cat(parts)
        for row in rows:
            trees = build_hierarchy(AFFINITIES[row["affinity"]](attention))
            metrics = found.baselines | agreement(trees, found.labels)
            yield row | {"share": step / total, "masks": run.name.rpartition("-")[0], "metrics": metrics}


def series(rows: list[Row], measured: str) -> dict[tuple[str, str], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """(masks, affinity) -> run -> shares of training in ascending order, and the values there."""
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        found[row["masks"], row["affinity"]][row["run"]].append((row["share"], row["metrics"][measured]))
    return {key: {run: tuple(np.array(sorted(each)).T) for run, each in runs.items()} for key, runs in found.items()}


def table(rows: list[Row], measured: str) -> str:
    """Markdown, in percent."""
    lines = ["| affinity | masks | " + " | ".join(f"{stage:.0%} of training" for stage in STAGES) + " |"]
    lines += ["|---" * (2 + len(STAGES)) + "|"]
    at_stages = {
        key: {run: np.interp(STAGES, *points) for run, points in runs.items()} for key, runs in series(rows, measured).items()
    }
    for affinity in dict.fromkeys(affinity for _, affinity in at_stages):
        kinds = [masks for masks, other in at_stages if other == affinity]
        for masks in kinds:
            cells = [
                spread([100 * value for value in stage]) for stage in zip(*at_stages[masks, affinity].values(), strict=True)
            ]
            lines.append(f"| {affinity} | {masks} | {' | '.join(cells)} |")
        if len(kinds) == 2:
            first, second = (
                {run.rpartition("-")[2]: values for run, values in at_stages[masks, affinity].items()} for masks in kinds
            )
            pairs = [first[seed] - second[seed] for seed in first if seed in second]
            cells = [spread([100 * value for value in stage], sign="+") for stage in zip(*pairs, strict=True)]
            lines.append(f"| {affinity} | {kinds[0]} less {kinds[1]} | {' | '.join(cells)} |")
    for name, words in BASELINES.items():
        value = 100 * rows[0]["metrics"][f"{name}_{measured}"]
        lines.append(f"| no model | {words} | {f'{value:.1f} | ' * len(STAGES)}".rstrip())
    return "\n".join(lines)


def curves(rows: list[Row], measured: str) -> Figure:
    """A panel an affinity, a line a kind of masks."""
    panels: dict[str, dict[str, Curve]] = defaultdict(dict)
    for (masks, affinity), runs in series(rows, measured).items():
        panels[affinity][f"{masks} masks"] = list(runs.values())
    levels = {words: rows[0]["metrics"][f"{name}_{measured}"] for name, words in BASELINES.items()}
    return agreement_curves(panels, levels, measured.replace("_", " "))


if __name__ == "__main__":
    main()
