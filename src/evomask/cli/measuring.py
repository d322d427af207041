"""Commands that end in tables: bench, reproduce."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from evomask.cli.options import check_free, choose_first, parse, summary


def bench(arguments: list[str]) -> None:
    """NAME [--json FILE]: how long it takes, beside what it is compared with."""
    from rich.console import Console

    from evomask.benchmarks import BENCHMARKS
    from evomask.benchmarks.comparison import as_rows, circumstances

    name = choose_first(arguments, {name: run.__doc__ for name, (_, run) in BENCHMARKS.items()}, "benchmark", "evomask bench")
    config_type, run_benchmark = BENCHMARKS[name]

    @dataclass(frozen=True, kw_only=True)
    class BenchOptions:
        """Compare times.

        Attributes:
            json: a file to write the rows to.
            config: the benchmark.
        """

        json: Path | None = None
        config: Annotated[config_type, tyro.conf.arg(name="")]  # type: ignore[valid-type]

    options = parse(BenchOptions, arguments[1:], f"evomask bench {name}", description=summary(run_benchmark.__doc__))
    if options.json is not None:
        check_free(options.json, "--json")
    comparisons = run_benchmark(options.config)
    for comparison in comparisons:
        Console().print(comparison.table())
    found = circumstances()
    print(json.dumps(found))
    if options.json is not None:
        record = {"benchmark": name, "rows": as_rows(comparisons)} | found
        options.json.write_text(json.dumps(record, indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class ReproduceOptions:
    """Rerun a table, at the paper's size or a smaller one: what is finished is left alone, what was broken off goes on.

    Attributes:
        scale: paper, mini (one GPU) or micro (a CPU overnight).
        data: the folder of all data sets; docs/reproduce.md says what is looked for in it.
        out: the folder of runs, results and tables, which several tables share. None: reproduced/SCALE
        seeds: of pretraining, and of what is trained after it.
        evaluations: which to run now, such as finetune segmentation; the table keeps what there is of the others. None: all.
        jobs: encoders at a time; with several GPUs they take turns.
        minutes: stop after so many, with everything saved; the same command goes on.
        dry_run: take one step of everything at its own size, on a few embedded scenes, and keep nothing.
        json: a file to write the figures to, too; one that an earlier call has written is brought up to date.
        pretrain: further options of every `evomask pretrain`, in one word: --pretrain="--data.workers 8"
        evaluate: further options of every `evomask evaluate`, in one word.
        launcher: what starts evomask, in one word: --launcher="torchrun --nproc-per-node 8 -m evomask.cli"
    """

    scale: Literal["paper", "mini", "micro"] = "mini"
    data: Path = Path("data")
    out: Path | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    evaluations: tuple[str, ...] = ()
    jobs: int = 1
    minutes: float | None = None
    dry_run: bool = False
    json: Path | None = None
    pretrain: str = ""
    evaluate: str = ""
    launcher: str = ""


@dataclass(frozen=True, kw_only=True)
class CostsOptions:
    """Measure what evolved masks take of a pretraining step, as Section V-E reports it: minutes, and no data is needed.

    Attributes:
        scale: images a step: paper 256 (one large GPU), mini 64, micro 16 (a CPU). The model is ViT-S at each of them.
        out: the folder of the table. None: reproduced/SCALE
        turns: over which medians are taken.
        device: "auto", "cpu", "cuda".
        json: a file to write the figures to, too; one that an earlier call has written is brought up to date.
    """

    scale: Literal["paper", "mini", "micro"] = "mini"
    out: Path | None = None
    turns: int = 5
    device: str = "auto"
    json: Path | None = None


def reproduce(arguments: list[str]) -> None:
    """TABLE [--scale paper|mini|micro]: the paper's tables, its costs and what it leaves open, rerun."""
    from evomask.recipes.costs import COSTS, TITLE, reproduce_costs
    from evomask.recipes.tables import TABLES

    titles: dict[str, str | None] = {**{name: table.title for name, table in TABLES.items()}, COSTS: TITLE}
    name = choose_first(arguments, titles, "table", "evomask reproduce")
    if name == COSTS:
        costs = parse(CostsOptions, arguments[1:], f"evomask reproduce {COSTS}")
        folder = costs.out or Path("reproduced") / costs.scale
        print(reproduce_costs(costs.scale, folder, costs.turns, costs.device, costs.json))
        return
    options = parse(ReproduceOptions, arguments[1:], f"evomask reproduce {name}")
    from evomask.recipes.reproduce import Wanted, dry_run, reproduce

    wanted = Wanted(
        table=name,
        scale=options.scale,
        data=options.data,
        out=options.out or Path("reproduced") / options.scale,
        seeds=options.seeds,
        pretrain=tuple(shlex.split(options.pretrain)),
        evaluate=tuple(shlex.split(options.evaluate)),
        evaluations=options.evaluations,
    )
    launcher = shlex.split(options.launcher)
    if options.dry_run:
        print(f"{dry_run(wanted, options.jobs, launcher)} commands took a step")
        return
    print(reproduce(wanted, options.jobs, options.minutes, launcher, options.json))
