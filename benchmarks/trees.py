"""Do trees come to follow what is in an image as a model is pretrained? Their agreement with labels, stage by stage.

    python benchmarks/trees.py --runs results/micro/evolved-* results/micro/random-* --out results/trees \
        --labels camvid=camvid/images/val,camvid/annotations/val,11 coco=coco/val2017,coco/annotations/instances_val2017.json

A run is named MASKS-SEED, as those of benchmarks/pretraining.py, and its stages are its checkpoints (`--train.save-minutes 2.5
--train.keep 20` leaves some), before the first its initial weights. Each is measured as `evomask evaluate hierarchy` does, on
each set of labels (`scenes`, the embedded ones, are always among them) and with each affinity. What is measured is kept in
OUT/trees.jsonl and not measured again, so that the same command may be given until all runs are there.

The tables: purity at the beginning, at a third and two thirds of the training, and at its end, means over seeds with the half
width of a 95% confidence interval (Student's t); between two checkpoints the value is interpolated. OUT/NAME.webp: the curves.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pretraining import spread  # beside this file

from evomask.engine.pretrain import PretrainConfig
from evomask.engine.run import read_run
from evomask.figures.agreement import Curve, agreement_curves
from evomask.figures.style import save
from evomask.masking.affinity import AFFINITIES
from evomask.recipes.evaluation import encoder_of
from evomask.tasks.hierarchy import HierarchyConfig, evaluate_hierarchy

STAGES = (0.0, 1 / 3, 2 / 3, 1.0)
BASELINES = {"colour_and_position": "colour and position", "position": "position", "colour": "colour", "chance": "chance"}
Row = dict[str, Any]


def main() -> None:
    """Measure what is not measured yet, then print the tables and draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--labels", nargs="*", default=[], help="NAME=IMAGES,MASKS[,IGNORED]")
    parser.add_argument("--affinities", nargs="+", default=list(AFFINITIES))
    parser.add_argument("--count", type=int, default=101)
    parser.add_argument("--measure", default="purity", choices=("purity", "covering", "best_rand"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "trees.jsonl"
    rows: list[Row] = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {key_of(row) for row in rows}
    for run in arguments.runs:
        if not (run / "report.html").exists():  # written last
            print(f"{run} is not finished: left out")
            continue
        for name, labels in {"scenes": {}, **label_sets(arguments.labels)}.items():
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
        name, _, rest = text.partition("=")
        images, masks, *ignored = rest.split(",")
        sets[name] = {"images": Path(images), "masks": Path(masks), "ignored": tuple(map(int, ignored))}
    return sets


def key_of(row: Row) -> tuple[Any, ...]:
    """What is measured once."""
    return tuple(row[name] for name in ("run", "step", "labels", "affinity"))


def measure(run: Path, name: str, labels: dict[str, Any], arguments: argparse.Namespace, known: set[tuple[Any, ...]]):
    """Yield a row for each stage and affinity of a run that is not known."""
    config = read_run(run, PretrainConfig)
    checkpoints = {int(path.name.removeprefix("step_")): str(path) for path in sorted((run / "checkpoints").glob("step_*"))}
    total = max(checkpoints)
    for step, spec in {0: f"untrained:{run}", **checkpoints}.items():
        for affinity in arguments.affinities:
            row: Row = {"run": run.name, "step": step, "labels": name, "affinity": affinity}
            if key_of(row) in known:
                continue
            blocks = config.host.attention_blocks
            options = HierarchyConfig(count=arguments.count, affinity=affinity, blocks=blocks, **labels)
            metrics = evaluate_hierarchy(encoder_of(spec), options)
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
