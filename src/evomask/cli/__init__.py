"""The command line. A command is a function of its arguments, and a word in COMMANDS.

Heavy imports wait until a command needs them, so that help and mistakes are answered at once.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version

from evomask.cli.errors import exit_code
from evomask.cli.evaluation import evaluate
from evomask.cli.looking import explore, report, show
from evomask.cli.measuring import bench, reproduce
from evomask.cli.options import choose
from evomask.cli.training import demo, export, pretrain, resume, train_tokenizer

COMMANDS: dict[str, Callable[[list[str]], None]] = {
    command.__name__.replace("_", "-"): command
    for command in (demo, pretrain, train_tokenizer, resume, evaluate, show, export, report, explore, bench, reproduce)
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    logging.basicConfig(format="evomask: %(message)s", level=logging.WARNING)
    logging.getLogger("evomask").setLevel(logging.INFO)  # what was loaded of an encoder, and what was missing
    logging.getLogger("huggingface_hub").propagate = False  # it prints its warnings itself
    # Computing threads that wait in a busy loop take the cores from the processes that load images: on two cores, a third of
    # the time. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return exit_code(lambda: _run(arguments))


def _run(arguments: list[str]) -> None:
    if arguments == ["--version"]:
        print(f"evomask {version('evomask')}")
    elif not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        raise SystemExit(0 if arguments else 2)
    else:
        name, *rest = arguments
        COMMANDS[choose(name, list(COMMANDS), "command")](rest)


def _overview() -> str:
    lines = [f"  evomask {name:17}{(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: evomask COMMAND [OPTIONS]   (`evomask COMMAND --help` lists the options)", "", *lines])
