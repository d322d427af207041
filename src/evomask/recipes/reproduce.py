"""Rerunning a table of the paper: what is not done yet is run, and a table stands at the end."""

import logging
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from evomask.engine.run import make_folder, write_atomically
from evomask.recipes.commands import Command, Runner
from evomask.recipes.paper import PaperRun
from evomask.recipes.scales import CAMVID, CAMVID_FILE, SCALES
from evomask.recipes.table_plan import Wanted, chains_of, plan
from evomask.recipes.table_text import check_place, write_table
from evomask.recipes.tables import TABLES

logger = logging.getLogger("evomask")


def reproduce(
    wanted: Wanted, jobs: int = 1, minutes: float | None = None, launcher: Sequence[str] = (), json_file: Path | None = None
) -> Path:
    """Do what is not done yet; returns the table, OUT/TABLE.md, beside which OUT/TABLE.csv has the figure and the command of
    every seed, and OUT/commands.jsonl when what was run and how long it took.

    Args:
        wanted: what to reproduce.
        jobs: encoders at a time, each with its pretraining and then its evaluations; with several GPUs they take turns.
        minutes: after so many stop, with everything saved; None: when all is done.
        launcher: what starts evomask, such as ("torchrun", "--nproc-per-node", "8", "-m", "evomask.cli"). None: Python.
        json_file: to write the rows of the csv to, too.

    Raises:
        ValueError: a command failed, or a folder was made by another one; what else there is has been done. `json_file` has no
            folder, or is another file.
        Interrupted: a signal came, or time was up; the same command goes on.
    """
    if min(jobs, len(wanted.seeds)) < 1:
        raise ValueError(f"--jobs {jobs} and {len(wanted.seeds)} --seeds: there has to be at least one of each")
    if minutes is not None and minutes <= 0:
        raise ValueError(f"--minutes must be above 0, not {minutes:g}")
    if launcher and shutil.which(launcher[0]) is None:
        raise ValueError(f"--launcher: there is no program {launcher[0]}")
    if not wanted.data.is_dir():
        raise ValueError(f"{wanted.data} is no folder: --data names that of the data sets, see docs/reproduce.md")
    if json_file is not None:
        check_place(json_file)
    cells = plan(wanted)
    chains = chains_of([cell for cell in cells if wanted.runs(cell.column)])
    left = {command.folder: command.next_arguments() for chain in chains for command in chain}  # before anything is run
    _check_data(wanted, left.values())
    make_folder(wanted.out)
    write_atomically(wanted.out / CAMVID_FILE, "\n".join(CAMVID) + "\n")
    logger.info("%d of %d commands are left to be run", sum(map(bool, left.values())), len(left))
    runner = Runner(wanted.out, jobs, launcher)
    stopped_by = runner.run(chains, minutes)
    path = write_table(wanted, cells, json_file)
    more = f", and {len(runner.failures) - 1} more" if len(runner.failures) > 1 else ""
    failed = f"{runner.failures[0]}{more}; " if runner.failures else ""
    if stopped_by is not None:
        raise Interrupted(stopped_by, f"{failed}all is saved, and the same command goes on; {path} has what there is")
    if failed:
        raise ValueError(f"{failed}{path} has what there is, and the same command tries again")
    return path


def _check_data(wanted: Wanted, commands: Iterable[Sequence[str]]) -> None:
    """Raise a ValueError where a command asks for data that are not there."""
    # What --pretrain and --evaluate say comes last, and counts.
    said = [word for command in commands for option, word in dict(pairwise(command)).items() if option.startswith("--")]
    named = dict.fromkeys(Path(word) for word in said if word.startswith(f"{wanted.data}/"))
    missing = [path for path in named if not path.exists() and not path.is_relative_to(wanted.out)]
    if missing:
        more = f", nor {len(missing) - 1} more of what it needs" if len(missing) > 1 else ""
        raise ValueError(f"there is no {missing[0]}{more}: docs/reproduce.md says what is looked for in --data")


class Interrupted(Exception):
    """A signal came, or time was up; everything is saved.

    Attributes:
        signum: the signal's number; SIGTERM where time was up.
    """

    def __init__(self, signum: int, what_is_left: str):
        super().__init__(f"stopped: {what_is_left}")
        self.signum = signum


def dry_run(wanted: Wanted, jobs: int = 1, launcher: Sequence[str] = ()) -> int:
    """Take every pretraining and every kind of evaluation of a table through one step at its own size, on a few scenes instead
    of its data, in a folder that is then deleted; returns how many commands there were.

    What cannot be had without a network is stood in for: language models and tokenizers by small ones made on the spot,
    published weights by those that a ViT-B begins with.

    Raises:
        ValueError: a command failed.
        Interrupted: a signal came.
    """
    with tempfile.TemporaryDirectory(prefix="evomask-") as folder:
        out = Path(folder)
        chains = _dry_chains(replace(wanted, out=out))
        runner = Runner(out, jobs, launcher)
        stopped_by = runner.run(chains, None)
        if stopped_by is not None:
            raise Interrupted(stopped_by, "nothing is left of the dry run")
        if runner.failures:
            raise ValueError("; ".join(runner.failures))
    return len({command.folder for chain in chains for command in chain})


_DRY_DATA = ("--data.scenes", "2", "--data.workers", "0")
_DRY_PRETRAINING = (
    *_DRY_DATA,
    *("--train.epochs", "1", "--train.batch-size", "2", "--train.micro-batches", "1"),
    *("--optim.warmup-epochs", "0", "--monitor.every", "0"),
)
_DRY_LOOP = ("--workers", "0", "--loop.epochs", "1", "--loop.micro-batches", "1", "--optim.warmup-epochs", "0")
_DRY_LANGUAGE = (
    *("--scenes", "2", "--language-model", "small", "--language", "frozen", "--small.epochs", "1", "--small.batch-size", "2"),
    *(*_DRY_LOOP, "--loop.batch-size", "2", "--val-limit", "2", "--new-tokens", "2", "--shuffled", "False"),
)
_DRY_RETRIEVAL = ("--instances", "2", "--views", "2", "--workers", "0", "--loop.epochs", "1", "--loop.batch-size", "2")
_DRY_EVALUATIONS = {
    "finetune": ("--scenes", "50", *_DRY_LOOP, "--loop.batch-size", "10"),
    "linear-probe": ("--scenes", "50", *_DRY_LOOP, "--loop.batch-size", "10"),
    "segmentation": ("--scenes", "2", *_DRY_LOOP, "--loop.batch-size", "2", "--iterations-per-epoch", "1"),
    "detection": ("--scenes", "2", *_DRY_LOOP, "--loop.batch-size", "2"),
    "oxford": _DRY_RETRIEVAL,
    "paris": _DRY_RETRIEVAL,
    "vqa": _DRY_LANGUAGE,
    "counting": (*_DRY_LANGUAGE, "--balanced", "False"),
    "identification": (*_DRY_LANGUAGE, "--balanced", "False"),
}
"""Options by what an evaluation's name begins with."""


def _dry_chains(wanted: Wanted) -> list[list[Command]]:
    table, scale = TABLES[wanted.table], SCALES[wanted.scale]
    chains: list[list[Command]] = []
    evaluated: set[tuple[str, str]] = set()
    for row in table.rows:
        encoder = scale.encoder(row)
        if encoder is None:
            continue
        chain: list[Command] = []
        base, spec = "vit_base_mae", "untrained:vit_base_mae"
        if isinstance(encoder, PaperRun):
            base = encoder.base.__name__
            tokenizer = _dry_tokenizer(wanted.out, scale.patches) if "beit" in base else None
            chain += [tokenizer] if tokenizer is not None else []
            options = ("--host.tokenizer", str(tokenizer.folder)) if tokenizer is not None else ()
            folder = wanted.out / "runs" / f"{encoder.name}-{row.attention_blocks}"
            arguments = ("pretrain", *scale.pretraining(encoder, row.attention_blocks), *options, *_DRY_PRETRAINING)
            chain.append(Command(arguments=(*arguments, *wanted.pretrain), folder=folder))
            spec = str(folder)
        for column in scale.columns(table):
            if (base, column.evaluation) in evaluated or not wanted.runs(column):
                continue
            evaluated.add((base, column.evaluation))
            options = scale.evaluations[column.evaluation].options
            dry = _DRY_EVALUATIONS[_dry_kind(column.evaluation)]
            arguments = ("evaluate", options[0], "--encoder", spec, *options[1:], *dry, *wanted.evaluate)
            folder = wanted.out / "results" / f"{base}-{column.evaluation}"
            chain.append(Command(arguments=arguments, folder=folder))
        chains.append(chain)
    return chains


def _dry_kind(evaluation: str) -> str:
    return next(kind for kind in _DRY_EVALUATIONS if evaluation.startswith(kind))


def _dry_tokenizer(out: Path, patches: int) -> Command:
    side = 8 * round(patches**0.5)
    options = ("--image-size", str(side), str(side), "--model.width", "8", "--least-perplexity", "1", "--measured", "2")
    steps = ("--train.epochs", "1", "--train.batch-size", "2", "--optim.warmup-epochs", "0")
    return Command(arguments=("train-tokenizer", *options, *_DRY_DATA, *steps), folder=out / "runs" / "tokenizer")
