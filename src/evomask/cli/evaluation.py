"""`evomask evaluate`."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from evomask.cli.errors import is_first_process
from evomask.cli.options import choose_first, parse, summary


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
    print_result(start_evaluation(task_of(default), options.encoder, options.config, options.out, command))


def print_result(folder: Path) -> None:
    """Its figures in one line, and the file that holds them."""
    from evomask.tasks.result import RESULT

    path = folder / RESULT
    if is_first_process():
        print(json.dumps(json.loads(path.read_text())["metrics"]))
        print(path)
