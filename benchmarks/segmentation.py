"""What pretraining with several masks brings to segmentation: UperNet on CamVid, tuned from each encoder and from none.

    python benchmarks/segmentation.py --camvid camvid --runs results/micro --out results/camvid

`--camvid` holds images/ and annotations/, each with train/ and val/, 11 classes and 11 for void; `--runs` what
`benchmarks/pretraining.py` has left. "none" is the encoder that the first masks' run of that seed started from. What is
finished is not done again, and what was broken off goes on.

The table: means over seeds, with the half width of a 95% confidence interval (Student's t); below it, differences between
masks, paired by seed.
"""

import argparse
import json
import shlex
from pathlib import Path

from pretraining import NONE, finish

from evomask.analysis.confidence import spread
from evomask.recipes.scales import CAMVID

METRICS = ["mIoU", "aAcc", "mAcc"]


def main() -> None:
    """Do what is not done yet, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True, help="a folder with images/ and annotations/")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the pretrainings, MASKS-SEED")
    parser.add_argument("--out", type=Path, required=True, help="the folder for results")
    parser.add_argument("--masks", nargs="+", default=["evolved", "random"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--evaluate", type=shlex.split, default=[], help="further options of `evomask evaluate`, in one word")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for masks in arguments.masks:
            segment(arguments, masks, seed, str(arguments.runs / f"{masks}-{seed}"))
        segment(arguments, NONE, seed, f"untrained:{arguments.runs / f'{arguments.masks[0]}-{seed}'}")
    print(table(arguments))


def segment(arguments: argparse.Namespace, masks: str, seed: int, encoder: str) -> None:
    """Tune and judge an encoder at 96 x 128 px, in crops of 64."""
    classes = arguments.out / "classes.txt"
    classes.write_text("\n".join(CAMVID) + "\n")
    options = ["--classes", str(classes), "--ignored", "11", "--loop.seed", str(seed)]
    for split in ("train", "val"):
        options += [f"--{split}", str(arguments.camvid / "images" / split)]
        options += [f"--{split}-masks", str(arguments.camvid / "annotations" / split)]
    options += ["--crop", "64", "64", "--sides", "96", "128", "--stride", "43", "43"]
    how = ("--encoder", encoder, *options, *arguments.evaluate)
    finish(arguments.out / f"{masks}-{seed}", "evaluate", "segmentation_small", *how)


def table(arguments: argparse.Namespace) -> str:
    """Markdown."""
    rows = [*arguments.masks, NONE]
    results = {masks: [arguments.out / f"{masks}-{seed}" / "result.json" for seed in arguments.seeds] for masks in rows}
    found = {masks: [json.loads(path.read_text())["metrics"] for path in paths] for masks, paths in results.items()}
    lines = [f"| % | {' | '.join(METRICS)} |", "|---" * (1 + len(METRICS)) + "|"]
    for masks in rows:
        lines.append(f"| {masks} | {' | '.join(spread([each[name] for each in found[masks]]) for name in METRICS)} |")
    first, *others = rows
    for other in others:
        pairs = list(zip(found[first], found[other], strict=True))
        cells = [spread([mine[name] - theirs[name] for mine, theirs in pairs], sign="+") for name in METRICS]
        lines.append(f"| {first} less {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
