"""What pretraining with several masks brings, beside none: kNN, linear probe and fine-tuning with a tenth of the labels.

    python benchmarks/pretraining.py --images imagenette112 --out results/pretraining
    python benchmarks/pretraining.py --images imagenette112 --out results/micro --pretrain="--train.epochs 8 ..."

`--images` holds train/ and val/, each with a folder a class. Every pretraining is a run of `evomask pretrain` with the same
options but for masks and seed; "none" is the encoder that the first masks' run of that seed started from. What is finished is
not done again, and what was broken off goes on, so that the same command may be given until the table stands.

The table: means over seeds, with the half width of a 95% confidence interval (Student's t); below it, differences between
masks, paired by seed.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from evomask.analysis.confidence import spread
from evomask.recipes.commands import Command

NONE = "none"
EVALUATIONS = {
    "kNN": ["knn"],
    "linear probe": [
        *("linear-probe", "--cached", "True", "--pooling", "mean", "--loop.batch-size", "256", "--validate-every", "10"),
        *("--rates", "1", "3", "10", "30", "100"),
    ],
    "fine-tuning, 10% of the labels": ["finetune_few_labels"],
}
"""What the columns of the table are."""


def main() -> None:
    """Do what is not done yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="the folder for runs and results")
    parser.add_argument("--recipe", default="vit_tiny_mae_112")
    parser.add_argument("--masks", nargs="+", default=["evolved", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrain", type=shlex.split, default=[], help="further options of `evomask pretrain`, in one word")
    parser.add_argument("--evaluate", type=shlex.split, default=[], help="further options of `evomask evaluate`, in one word")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for masks in arguments.masks:
            pretrain(arguments, masks, seed)
            evaluate(arguments, masks, seed, str(run_folder(arguments, masks, seed)))
        evaluate(arguments, NONE, seed, f"untrained:{run_folder(arguments, arguments.masks[0], seed)}")
    print(table(arguments))


def run_folder(arguments: argparse.Namespace, masks: str, seed: int) -> Path:
    """Of a pretraining."""
    return arguments.out / f"{masks}-{seed}"


def result_folder(arguments: argparse.Namespace, masks: str, seed: int, column: str) -> Path:
    """Of an evaluation."""
    return arguments.out / f"{masks}-{seed}-{EVALUATIONS[column][0]}"


def pretrain(arguments: argparse.Namespace, masks: str, seed: int) -> None:
    """Run it, or go on with it."""
    options = ["--data.root", str(arguments.images / "train"), "--masking.strategy", masks, "--train.seed", str(seed)]
    run = run_folder(arguments, masks, seed)
    finish(run, "pretrain", arguments.recipe, *options, *arguments.pretrain)


def evaluate(arguments: argparse.Namespace, masks: str, seed: int, encoder: str) -> None:
    """Evaluate by every column of the table."""
    images = ["--train", str(arguments.images / "train"), "--val", str(arguments.images / "val")]
    for column, (task, *options) in EVALUATIONS.items():
        seeded = [] if task == "knn" else ["--loop.seed", str(seed)]
        folder = result_folder(arguments, masks, seed, column)
        how = ("--encoder", encoder, *images, *options, *seeded, *arguments.evaluate)
        finish(folder, "evaluate", task, *how)


def finish(folder: Path, *command: str) -> None:
    """Run a command, or go on where it was broken off, or leave alone what is finished.

    Args:
        folder: that it makes.
        command: of evomask, but for --out.
    """
    try:
        left = Command(arguments=command, folder=folder).next_arguments()
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if left:
        run_evomask(*left)


def run_evomask(*arguments: str) -> None:
    """Run a command of evomask; where it fails, it has said why."""
    code = subprocess.run([sys.executable, "-m", "evomask.cli", *arguments], check=False).returncode
    if code:
        raise SystemExit(code)


def table(arguments: argparse.Namespace) -> str:
    """Markdown."""
    accuracy = {
        (masks, column): [
            json.loads((result_folder(arguments, masks, seed, column) / "result.json").read_text())["metrics"]["top1"]
            for seed in arguments.seeds
        ]
        for masks in [*arguments.masks, NONE]
        for column in EVALUATIONS
    }
    lines = [f"| top-1, % | {' | '.join(EVALUATIONS)} |", "|---" * (1 + len(EVALUATIONS)) + "|"]
    for masks in [*arguments.masks, NONE]:
        lines.append(f"| {masks} | {' | '.join(spread(accuracy[masks, column]) for column in EVALUATIONS)} |")
    first, *others = [*arguments.masks, NONE]
    for other in others:
        cells = []
        for column in EVALUATIONS:
            pairs = zip(accuracy[first, column], accuracy[other, column], strict=True)
            cells.append(spread([mine - theirs for mine, theirs in pairs], sign="+"))
        lines.append(f"| {first} less {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
