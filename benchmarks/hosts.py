r"""Every host with every kind of masks: does the loss fall, do the masks evolve, and does the encoder learn?

    python benchmarks/hosts.py --images imagenette112 --out results/hosts
    python benchmarks/hosts.py --images imagenette112 --out results/hosts --pretrain="--train.epochs 8" \
        --of vit_tiny_beit_112 "--host.tokenizer runs/tokenizer"

`--images` holds train/ and val/, each with a folder a class. Every pretraining is a run of `evomask pretrain` of a recipe with
the same options but for the masks, and those that `--of` adds to one recipe; each is compared, by kNN, with the encoder that it
started from. What is finished is not done again, and what was broken off goes on, so that the same command may be given until
the table stands.
"""

import argparse
import json
import shlex
from pathlib import Path
from statistics import mean

from pretraining import finish

RECIPES = ["vit_tiny_mae_112", "vit_tiny_beit_112", "vit_tiny_simmim_112", "swin_tiny_simmim_112"]
MASKS = ["random", "grid", "block", "evolved"]
UNTRAINED = "untrained"
COLUMNS = ["host", "masks", "loss, first epoch", "last", "depth, first", "last", "groups, last", "kNN", "untrained", "gain"]


def main() -> None:
    """Do what is not done yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder with train/ and val/")
    parser.add_argument("--out", type=Path, required=True, help="the folder for runs and results")
    parser.add_argument("--recipes", nargs="+", default=RECIPES)
    parser.add_argument("--masks", nargs="+", default=MASKS)
    parser.add_argument("--pretrain", type=shlex.split, default=[], help="further options of `evomask pretrain`, in one word")
    parser.add_argument("--of", nargs=2, action="append", default=[], metavar=("RECIPE", "OPTIONS"), help="more, of one recipe")
    parser.add_argument(
        "--evaluate", type=shlex.split, default=[], help="further options of `evomask evaluate knn`, in one word"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    images = ["--train", str(arguments.images / "train"), "--val", str(arguments.images / "val"), *arguments.evaluate]
    judge = ("evaluate", "knn", "--encoder")
    for recipe in arguments.recipes:
        more = [word for name, options in arguments.of if name == recipe for word in shlex.split(options)]
        for masks in arguments.masks:
            run = arguments.out / f"{recipe}-{masks}"
            data = ["--data.root", str(arguments.images / "train"), "--masking.strategy", masks]
            finish(run, "pretrain", recipe, *data, *arguments.pretrain, *more)
            finish(arguments.out / f"{recipe}-{masks}-knn", *judge, str(run), *images)
        start = f"untrained:{arguments.out / f'{recipe}-{arguments.masks[0]}'}"
        finish(arguments.out / f"{recipe}-{UNTRAINED}-knn", *judge, start, *images)
    print(table(arguments.out, arguments.recipes, arguments.masks))


def table(out: Path, recipes: list[str], masks: list[str]) -> str:
    """Markdown; losses, depths and groups are means over the logged steps of an epoch, accuracies are top-1 in percent."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for recipe in recipes:
        untrained = top1(out / f"{recipe}-{UNTRAINED}-knn")
        for name in masks:
            first, last = first_and_last_epoch(out / f"{recipe}-{name}")
            accuracy = top1(out / f"{recipe}-{name}-knn")
            cells = [
                recipe,
                name,
                number(first, "loss", 3),
                number(last, "loss", 3),
                number(first, "depth"),
                number(last, "depth"),
            ]
            cells += [number(last, "groups"), f"{accuracy:.1f}", f"{untrained:.1f}", f"{accuracy - untrained:+.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def top1(result: Path) -> float:
    """Of an evaluation's folder."""
    return json.loads((result / "result.json").read_text())["metrics"]["top1"]


def first_and_last_epoch(run: Path) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """The logged rows of each."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = rows[-1]["epoch"]
    return [row for row in rows if row["epoch"] == rows[0]["epoch"]], [row for row in rows if row["epoch"] == last]


def number(rows: list[dict[str, float]], name: str, digits: int = 1) -> str:
    """The mean of what was logged under that name, nothing where masks have no such thing."""
    values = [row[name] for row in rows if name in row]
    return f"{mean(values):.{digits}f}" if values else ""


if __name__ == "__main__":
    main()
