"""What it takes to rerun a table of the paper: its cells, each with the commands that it needs."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from evomask.recipes.commands import Command
from evomask.recipes.paper import PaperRun
from evomask.recipes.scales import SCALES
from evomask.recipes.tables import TABLES, Column, Row


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What to reproduce.

    Attributes:
        table: a name in `TABLES`.
        scale: a name in `SCALES`.
        data: the folder of all data.
        out: the folder of runs, results and tables; several tables share their runs there.
        seeds: of pretraining, and of what is trained after it.
        pretrain: further options of every `evomask pretrain`.
        evaluate: further options of every `evomask evaluate`.
        evaluations: which to run, by the names of a `Scale`; none: all that the table has.

    Raises:
        ValueError: the table has not such an evaluation at this scale, or a seed cannot be one or is given twice.
    """

    table: str
    scale: str
    data: Path
    out: Path
    seeds: tuple[int, ...]
    pretrain: tuple[str, ...] = ()
    evaluate: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()

    def __post_init__(self):
        if min(self.seeds, default=0) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"--seeds are different numbers from 0 on, not {' '.join(map(str, self.seeds))}")
        there = [column.evaluation for column in SCALES[self.scale].columns(TABLES[self.table])]
        unknown = [name for name in self.evaluations if name not in there]
        if unknown:
            names = ", ".join(dict.fromkeys(there))
            raise ValueError(f"--evaluations {unknown[0]}: {self.table} has {names} at this scale")

    def runs(self, column: Column) -> bool:
        """Whether this column is to be measured, and not only shown as far as it is there."""
        return not self.evaluations or column.evaluation in self.evaluations


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A figure of one seed.

    Attributes:
        row: its encoder.
        column: its evaluation.
        seed: of the training.
        needed: commands that come before, in this order.
        evaluation: the command that gives the figure.
        metric: the figure's name in its result.
        reported: the paper's figure.
    """

    row: Row
    column: Column
    seed: int
    needed: tuple[Command, ...]
    evaluation: Command
    metric: str
    reported: float | None

    def measured(self) -> float | None:
        """The figure; None where it is not there yet."""
        return (self.evaluation.metrics or {}).get(self.metric)


def plan(wanted: Wanted) -> list[Cell]:
    """All cells of a table, row by row."""
    return list(_Planner(wanted).cells())


class _Planner:
    """Turns a table into commands."""

    def __init__(self, wanted: Wanted):
        self._wanted, self._table, self._scale = wanted, TABLES[wanted.table], SCALES[wanted.scale]

    def cells(self) -> Iterator[Cell]:
        for row, seed in ((row, seed) for row in self._table.rows for seed in self._wanted.seeds):
            encoder = self._scale.encoder(row)
            if encoder is None:
                continue
            needed, spec = self._encoder(encoder, row, seed)
            for column in self._scale.columns(self._table):
                evaluation = self._scale.evaluations[column.evaluation]
                data = [word.format(data=self._wanted.data, out=self._wanted.out) for word in evaluation.data]
                name = needed[-1].folder.name if isinstance(encoder, PaperRun) else f"{re.sub('[:?=]', '-', encoder)}-{seed}"
                yield Cell(
                    row=row,
                    column=column,
                    seed=seed,
                    needed=needed,
                    evaluation=Command(
                        arguments=(
                            *("evaluate", evaluation.options[0], "--encoder", spec, *evaluation.options[1:], *data),
                            *("--loop.seed", str(seed), *self._wanted.evaluate),
                        ),
                        folder=self._wanted.out / "results" / f"{name}-{column.evaluation}",
                    ),
                    metric=evaluation.metrics.get(column.metric, column.metric),
                    reported=row.reported[self._table.columns.index(column)],
                )

    def _encoder(self, encoder: PaperRun | str, row: Row, seed: int) -> tuple[tuple[Command, ...], str]:
        """What has to be run before, and the spec of the encoder."""
        if isinstance(encoder, str) and encoder.startswith("timm:"):
            return (), encoder
        # Random weights are those that a pretraining of the table with this seed starts from.
        run = encoder if isinstance(encoder, PaperRun) else self._first_pretraining()
        needed = self._pretraining(run, row.attention_blocks, seed)
        folder = str(needed[-1].folder)
        return needed, folder if isinstance(encoder, PaperRun) else f"untrained:{folder}"

    def _first_pretraining(self) -> PaperRun:
        return next(row.encoder for row in self._table.rows if isinstance(row.encoder, PaperRun))

    def _pretraining(self, run: PaperRun, attention_blocks: int, seed: int) -> tuple[Command, ...]:
        wanted, scale = self._wanted, self._scale
        before: tuple[Command, ...] = ()
        tokenizer: tuple[str, ...] = ()
        if "beit" in run.base.__name__:
            name = scale.tokenizer
            if not isinstance(name, str):
                before = (self._tokenizer(name),)
                name = str(before[0].folder)
            tokenizer = ("--host.tokenizer", name)
        tapped = "" if attention_blocks == Row.attention_blocks else f"-{attention_blocks}-of-12-blocks"
        command = Command(
            arguments=(
                *("pretrain", *scale.pretraining(run, attention_blocks), *tokenizer),
                *("--data.root", f"{wanted.data}/{scale.images}", "--train.seed", str(seed), *wanted.pretrain),
            ),
            folder=wanted.out / "runs" / f"{run.name}{tapped}-{seed}",
        )
        return (*before, command)

    def _tokenizer(self, options: tuple[str, ...]) -> Command:
        return Command(
            arguments=("train-tokenizer", *options, "--data.root", f"{self._wanted.data}/{self._scale.images}"),
            folder=self._wanted.out / "runs" / "tokenizer",
        )


def chains_of(cells: Sequence[Cell]) -> list[list[Command]]:
    """Commands that have to follow each other, one chain an encoder; none is there twice."""
    chains: dict[Path, dict[Path, Command]] = {}
    for cell in cells:
        first = cell.needed[-1].folder if cell.needed else cell.evaluation.folder
        chain = chains.setdefault(first, {})
        for command in (*cell.needed, cell.evaluation):
            chain.setdefault(command.folder, command)
    return [list(chain.values()) for chain in chains.values()]
