"""Every measurement that needs a GPU, the most valuable first, each a command of evomask's own with a file of results.

    python benchmarks/on_gpu.py --out results            all of them, one after the other
    python benchmarks/on_gpu.py --out results hierarchy  those whose names begin so
    python benchmarks/on_gpu.py --list                   what there is

A machine without a package registry needs the wheels of what it lacks beside the checkout; on one that has a registry, for the
other's Python:

    pip download --no-deps --only-binary :all: --python-version 3.12 -d wheels tyro typeguard docstring-parser shtab fastcluster
    pip install --no-index --no-deps wheels/*.whl && pip install --no-index --no-deps --no-build-isolation -e .

What is finished is not done again, so that a run that was broken off goes on where it stopped. Failures are written down and do
not stop the rest. `--data` is the folder of data sets that docs/reproduce.md describes, of which imagenette112 is enough;
without one, the tables are left out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

EVOMASK = [sys.executable, "-m", "evomask.cli"]


def bench(name: str, *options: str) -> list[str]:
    """A benchmark on the GPU, whose rows go to {out}."""
    return [*EVOMASK, "bench", *name.split(), "--device", "cuda", *options, "--json", "{out}.json"]


LARGE = ("--batch-size", "256", "--turns", "7")
MEASUREMENTS: dict[str, list[str]] = {
    "kernel-tests": [sys.executable, "-m", "pytest", "-q", "-rs", "tests/masking/kernels", "-p", "no:cacheprovider"],
    "hierarchy": bench("hierarchy"),
    "costs": [*EVOMASK, "reproduce", "costs", "--scale", "paper", "--device", "cuda", "--turns", "7", "--out", "{out}"],
    "overhead-small-compiled": bench("overhead", *LARGE, "--compile", "True"),
    "overhead-small": bench("overhead", *LARGE),
    "step-small": bench("step", *LARGE, "--compile", "True"),
    "overhead-base-compiled": bench("overhead", "--vit", "vit_base_patch16_224", *LARGE, "--compile", "True"),
    "overhead-base": bench("overhead", "--vit", "vit_base_patch16_224", *LARGE),
    "step-base": bench("step", "--vit", "vit_base_patch16_224", *LARGE, "--compile", "True"),
    "loader": [*EVOMASK, "bench", "loader", "--json", "{out}.json"],
}
"""Name -> command; `{out}` stands for where its results go, without an ending."""

TABLES = ("growth", "table4", "table2", "table1", "table8", "table3")
"""In this order; the first has evolved against random masks, and all share their runs."""


def tables_at_mini(out: Path, data: Path) -> dict[str, list[str]]:
    """The paper's tables at the size that one GPU affords, by fine-tuning, which go on where they were broken off."""
    saved = ("--pretrain=--data.workers 12 --train.save-minutes 1", "--evaluate=--workers 12")
    options = ("--scale", "mini", "--data", str(data), "--evaluations", "finetune", *saved, "--out", str(out / "reproduced"))
    return {f"mini-{table}": [*EVOMASK, "reproduce", table, *options] for table in TABLES}


def main() -> None:
    """Run what was asked for and is not finished."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="beginnings of names; none for all")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--data", type=Path, help="the folder of data sets, for tables at --scale mini")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    measurements = MEASUREMENTS | (tables_at_mini(arguments.out, arguments.data) if arguments.data else {})
    chosen = [name for name in measurements if name.startswith(tuple(arguments.names) or "")]
    if arguments.list:
        print("\n".join(f"{name:26} {' '.join(measurements[name])}" for name in chosen))
        return

    arguments.out.mkdir(parents=True, exist_ok=True)
    record_path = arguments.out / "record.json"
    record = json.loads(record_path.read_text()) if record_path.exists() else {}
    for name in chosen:
        if record.get(name, {}).get("exit") == 0:
            continue
        command = [part.replace("{out}", str(arguments.out / name)) for part in measurements[name]]
        began = time.monotonic()
        with (arguments.out / f"{name}.log").open("w") as log:
            code = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": "src"}
            ).returncode
        record[name] = {"exit": code, "seconds": round(time.monotonic() - began, 1), "command": command}
        record_path.write_text(json.dumps(record, indent=2) + "\n")
        print(f"{name}: exit {code} after {record[name]['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
