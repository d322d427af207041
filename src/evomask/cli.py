"""The command line. A command is a function of its arguments, and a line in COMMANDS.

Heavy imports wait until a command needs them, so that help and mistakes are answered at once.
"""

import inspect
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Literal

import tyro

from evomask.command_errors import exit_code, is_first_process
from evomask.command_line import choose, choose_first, parse, summary


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="evomask: %(message)s", level=logging.WARNING)
    logging.getLogger("evomask").setLevel(logging.INFO)  # what was loaded of an encoder, and what was missing
    # Computing threads that wait in a busy loop take the cores from the processes that load images: on two cores, a third of
    # the time. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if arguments == ["--version"]:
        print(f"evomask {version('evomask')}")
        return 0
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    name, *rest = arguments
    return exit_code(lambda: COMMANDS[choose(name, list(COMMANDS), "command")](rest))


def demo(arguments: list[str]) -> None:
    """Pretrain on the embedded scenes, evaluate, and write a report: minutes on two CPU cores."""
    options = parse(DemoOptions, arguments, "evomask demo")
    from evomask.recipes.demonstration import run_demo

    run_demo(options.out)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Pretrain a small ViT on the embedded scenes, compare it with the untrained one, and write a report.

    Attributes:
        out: the folder to make. None: the first free of runs/demo, runs/demo-2, ...
    """

    out: Path | None = None


def pretrain(arguments: list[str]) -> None:
    """RECIPE [--data.root DIR ...]: pretrain as a recipe says; any leaf of it can be overridden."""
    from evomask.engine.pretrain import PretrainConfig
    from evomask.recipes import RECIPES, launch

    name = choose_first(arguments, {name: recipe.__doc__ for name, recipe in RECIPES.items()}, "recipe", "evomask pretrain")
    recipe = RECIPES[name]

    @dataclass(frozen=True, kw_only=True)
    class PretrainOptions:
        """Pretrain.

        Attributes:
            out: the folder to make for the run. None: the first free of runs/RECIPE, runs/RECIPE-2, ...
            config: the recipe.
        """

        out: Path | None = None
        # A recipe says which host it is: without sub-commands, a host's options are those of the recipe's.
        config: Annotated[tyro.conf.AvoidSubcommands[PretrainConfig], tyro.conf.arg(name="")]

    default = PretrainOptions(config=recipe())
    options = parse(PretrainOptions, arguments[1:], f"evomask pretrain {name}", default, inspect.getdoc(recipe))
    _print(launch.start(options.config, options.out, command=shlex.join(["evomask", "pretrain", *arguments])))


def train_tokenizer(arguments: list[str]) -> None:
    """[--data.root DIR ...]: train a tokenizer on your own images, for BEiT to predict its tokens."""
    from evomask.engine.tokenizer import TrainTokenizerConfig
    from evomask.recipes import tokenizer

    @dataclass(frozen=True, kw_only=True)
    class TokenizerOptions:
        """Train a tokenizer.

        Attributes:
            out: the folder to make for the run. None: the first free of runs/tokenizer, runs/tokenizer-2, ...
            config: the tokenizer, and how it is trained.
        """

        out: Path | None = None
        config: Annotated[TrainTokenizerConfig, tyro.conf.arg(name="")]

    about = "Train a tokenizer on your own images: `evomask pretrain vit_tiny_beit --host.tokenizer RUN` predicts its tokens."
    default = TokenizerOptions(config=TrainTokenizerConfig())
    options = parse(TokenizerOptions, arguments, "evomask train-tokenizer", default, about)
    command = shlex.join(["evomask", "train-tokenizer", *arguments])
    _print(tokenizer.train_tokenizer(options.config, options.out, command))


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """A run.

    Attributes:
        run: the run's folder.
    """

    run: tyro.conf.Positional[Path]


def resume(arguments: list[str]) -> None:
    """RUN: go on exactly where a run, or an evaluation that trains, stopped."""
    options = parse(RunOptions, arguments, "evomask resume")
    from evomask.recipes import evaluation, launch, tokenizer

    if evaluation.is_evaluation(options.run):
        _print_result(evaluation.resume_evaluation(options.run))
    elif tokenizer.is_tokenizer_run(options.run):
        _print(tokenizer.resume_tokenizer(options.run))
    else:
        _print(launch.resume(options.run))


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write a page about a run, or one that compares several.

    Attributes:
        runs: folders of runs.
        out: of several, the page to write. None: comparison.html. The page about one run is RUN/report.html.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None


def report(arguments: list[str]) -> None:
    """RUN...: one self-contained page about a run, or about several side by side."""
    options = parse(ReportOptions, arguments, "evomask report")
    if len(options.runs) > 1:
        from evomask.figures.comparison import write_comparison

        print(write_comparison(options.runs, options.out or Path("comparison.html")))
        return
    if not options.runs:
        raise ValueError("name a run, or several to compare; see evomask report --help")
    if options.out is not None:
        raise ValueError("--out is of several runs: the page about one is RUN/report.html")
    from evomask.figures.report import write_report

    print(write_report(options.runs[0]))


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a run's weights as another library loads them.

    Attributes:
        run: the run's folder.
        to: the library.
        out: the folder to make. None: RUN/export/LIBRARY.
    """

    run: tyro.conf.Positional[Path]
    to: Literal["timm", "transformers"]
    out: Path | None = None


def export(arguments: list[str]) -> None:
    """RUN --to timm|transformers: weights as those libraries load them."""
    options = parse(ExportOptions, arguments, "evomask export")
    from evomask.models.encoders import EXPORT
    from evomask.recipes import hooks, launch

    folder = options.out or options.run / EXPORT / options.to
    host, config = launch.load_host(options.run)
    hooks.export(host, config, options.to, folder)
    print(folder)


def evaluate(arguments: list[str]) -> None:
    """TASK --encoder SPEC: what an encoder has learnt."""
    from evomask.recipes import EVALUATIONS
    from evomask.tasks import TASKS, task_of

    docs = {name: task.evaluate.__doc__ for name, task in TASKS.items()}
    docs |= {name: recipe.__doc__ for name, recipe in EVALUATIONS.items()}
    name = choose_first(arguments, docs, "task", "evomask evaluate")
    default = EVALUATIONS[name]() if name in EVALUATIONS else TASKS[name].config()

    @dataclass(frozen=True, kw_only=True)
    class EvaluateOptions:
        """Evaluate an encoder.

        Attributes:
            encoder: a run or a checkpoint of it, an evaluation that tuned its encoder, a folder in the format of timm or
                transformers, a weights file, timm:NAME, hf:NAME, or untrained:RECIPE or untrained:RUN. What weights do not say
                may follow:
                weights.pth?heads=4&image_size=96&mean=0.5&std=0.2
            out: the folder to make, for result.json. None: the first free of results/TASK, results/TASK-2, ...
            config: the task.
        """

        encoder: str
        out: Path | None = None
        config: Annotated[type(default), tyro.conf.arg(name="")] = default  # type: ignore[valid-type]

    options = parse(EvaluateOptions, arguments[1:], f"evomask evaluate {name}", description=summary(docs[name]))
    from evomask.recipes.evaluation import start_evaluation

    command = shlex.join(["evomask", "evaluate", *arguments])
    _print_result(start_evaluation(task_of(default), options.encoder, options.config, options.out, command))


def _print_result(folder: Path) -> None:
    from evomask.tasks.result import RESULT

    path = folder / RESULT
    if is_first_process():
        print(json.dumps(json.loads(path.read_text())["metrics"]))
        print(path)


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
        _check_free(options.json, "--json")
    comparisons = run_benchmark(options.config)
    for comparison in comparisons:
        Console().print(comparison.table())
    found = circumstances()
    print(json.dumps(found))
    if options.json is not None:
        record = {"benchmark": name, "rows": as_rows(comparisons)} | found
        options.json.write_text(json.dumps(record, indent=2) + "\n")


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Draw what a model does to image files, or how a run went.

    Attributes:
        images: image files; none for the pictures of a run, stages, health, loss and gradients.
        encoder: a run or a checkpoint of it, an evaluation that tuned its encoder, a folder in the format of timm or
            transformers, a weights file, timm:NAME, hf:NAME, or untrained:RECIPE or untrained:RUN. What weights do not say may
            follow:
            weights.pth?heads=4&image_size=96&mean=0.5&std=0.2
            stages, health, loss, reconstruction and difficulty need a run, gradients the folder of a fine-tuning. distance,
            difficulty and gradients compare several: say --encoder again.
        out: the picture to write; its ending says the format, png, webp, svg or pdf. None: PICTURE.png
        dpi: pixels an inch.
    """

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    encoder: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    out: Path | None = None
    dpi: int = 150


def show(arguments: list[str]) -> None:
    """PICTURE --encoder SPEC IMAGE...: masks, trees, attention, reconstructions of image files; how a run went."""
    from evomask.figures.style import PICTURE_FORMATS, save
    from evomask.recipes.show import PICTURES, draw_picture

    kinds = {name: picture.draw.__doc__ for name, picture in PICTURES.items()}
    kind = choose_first(arguments, kinds, "picture", "evomask show")
    options = parse(ShowOptions, arguments[1:], f"evomask show {kind}")
    out = options.out or Path(f"{kind}.png")
    if out.suffix not in PICTURE_FORMATS:
        raise ValueError(f"--out must end in one of {' '.join(PICTURE_FORMATS)}, not {out.name!r}")
    if options.dpi < 10:
        raise ValueError(f"--dpi must be at least 10, not {options.dpi}")
    _check_free(out, "--out")
    figure = draw_picture(kind, options.encoder, options.images)
    save(figure, out, options.dpi)
    print(out)


@dataclass(frozen=True, kw_only=True)
class ExploreOptions:
    """Look at images through encoders, in the browser.

    Attributes:
        encoders: to choose from, as --encoder of `evomask show`; the first two are shown side by side. More can be typed in on
            the page, and runs in ./runs are offered.
        host: the address to listen on. Only this machine can reach the default; whoever reaches another one can have any file
            of weights on this machine read.
        port: None: the first free one from 7860 on.
        browser: whether to open the page.
    """

    encoders: tyro.conf.Positional[tuple[str, ...]] = ()
    host: str = "127.0.0.1"
    port: int | None = None
    browser: bool = True


def explore(arguments: list[str]) -> None:
    """[ENCODER ...]: an interactive page: drop an image, move the depth, see partition, mask, attention, reconstruction."""
    options = parse(ExploreOptions, arguments, "evomask explore")
    from evomask.recipes.explore import explore

    explore(options.encoders, options.host, options.port, options.browser)


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


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    command.__name__.replace("_", "-"): command
    for command in (demo, pretrain, train_tokenizer, resume, evaluate, show, export, report, explore, bench, reproduce)
}


def _overview() -> str:
    lines = [f"  evomask {name:17}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: evomask COMMAND [OPTIONS]   (`evomask COMMAND --help` lists the options)", "", *lines])


def _check_free(file: Path, option: str) -> None:
    """Before any work: a file that a command writes at its end must have a place, and never overwrites another."""
    if file.exists():
        raise ValueError(f"{file} exists: choose another {option}")
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}: make it, or choose another {option}")


def _print(result: object) -> None:
    if is_first_process():
        print(result)


if __name__ == "__main__":
    sys.exit(main())
