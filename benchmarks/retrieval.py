"""What encoders are worth for finding products, before and after their descriptors are learnt on other products.

    python benchmarks/retrieval.py --labels grocery/labels.csv --out results/retrieval \
        --encoders evolved=runs/evolved-0 evolved=runs/evolved-1 random=runs/random-0 none=untrained:runs/evolved-0

The labels are split in halves; each half is tested by an encoder that has learnt from the other one, so every query is tested
and none of what is searched has been learnt from. What is finished is not done again, and what was broken off goes on.

The table: mean average precision over all queries, for several encoders of one name the mean over them. Below it, differences
to the first name, paired by query, with the half width of a 95% confidence interval over queries; that of the choice of
seed is not in it.
"""

import argparse
import json
import math
import shlex
import statistics
from collections import defaultdict
from pathlib import Path

from evomask.cli import main as evomask

TIMES = {"before": ["--finetune", "False"], "after": []}
"""What the columns of the table are, and the options that make them."""


def main() -> None:
    """Do what is not done yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", required=True, help="NAME=SPEC; several may have one name")
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="the folder for results")
    parser.add_argument("--halves", nargs="+", default=["first", "second"])
    parser.add_argument("--evaluate", type=shlex.split, default=[], help="further options of `evomask evaluate`, in one word")
    arguments = parser.parse_args()
    precisions: dict[str, dict[str, list[list[float]]]] = {time: defaultdict(list) for time in TIMES}
    for number, encoder in enumerate(arguments.encoders):
        name, _, spec = encoder.partition("=")
        for time in TIMES:
            folders = [evaluate(arguments, spec, f"{number}-{name}-{half}-{time}", half, time) for half in arguments.halves]
            rows = [json.loads(line) for folder in folders for line in (folder / "nearest.jsonl").read_text().splitlines()]
            precisions[time][name].append([100 * row["average_precision"] for row in rows])
    print(table(precisions))


def evaluate(arguments: argparse.Namespace, spec: str, folder: str, half: str, time: str) -> Path:
    """Run it, or go on with it, or leave alone what is finished; returns the folder."""
    out = arguments.out / folder
    if not (out / "result.json").exists():
        start = ["evaluate", "retrieval_small", "--encoder", spec, "--labels", str(arguments.labels), "--half", half]
        begun = (out / "config.json").exists()
        code = evomask(["resume", str(out)] if begun else [*start, *TIMES[time], *arguments.evaluate, "--out", str(out)])
        if code:
            raise SystemExit(code)
    return out


def table(precisions: dict[str, dict[str, list[list[float]]]]) -> str:
    """Markdown. Average precisions: when -> name -> encoder -> query."""
    lines = [f"| mAP, % | {' | '.join(precisions)} |", "|---" * (1 + len(precisions)) + "|"]
    means = {
        time: {name: [statistics.mean(each) for each in zip(*encoders, strict=True)] for name, encoders in of_time.items()}
        for time, of_time in precisions.items()
    }
    first, *others = next(iter(means.values()))
    for name in (first, *others):
        lines.append(f"| {name} | {' | '.join(f'{statistics.mean(of_time[name]):.1f}' for of_time in means.values())} |")
    for name in others:
        cells = [spread([a - b for a, b in zip(of_time[first], of_time[name], strict=True)]) for of_time in means.values()]
        lines.append(f"| {first} less {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(differences: list[float]) -> str:
    """Mean and half width of the 95% confidence interval, by the normal quantile: there are tens of queries."""
    half = 1.96 * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{statistics.mean(differences):+.1f} ± {half:.1f}"


if __name__ == "__main__":
    main()
