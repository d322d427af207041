"""From the words of a command line to what they mean: a name among known ones, options of a dataclass; or one line of error."""

import contextlib
import difflib
import io
import re
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import tyro

Options = TypeVar("Options")


def choose_first(arguments: list[str], described: dict[str, str | None], kind: str, prog: str) -> str:
    """The name that the arguments begin with. Where help is asked for instead, the names there are, and no more is done.

    Args:
        arguments: of a command.
        described: what there is, by name.
        kind: what a name is of, in one word.
        prog: the command.

    Raises:
        SystemExit: help was asked for, and has been shown.
        ValueError: there is no such name.
    """
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: {prog} {kind.upper()} [OPTIONS]   (`{prog} {kind.upper()} --help` lists the options)\n")
        width = max(map(len, described)) + 2
        print("\n".join(f"  {name:{width}}{(text or '').splitlines()[0]}" for name, text in described.items()))
        raise SystemExit(0)
    if not arguments or arguments[0].startswith("-"):
        raise ValueError(f"name a {kind} first: {', '.join(described)}")
    return choose(arguments[0], list(described), kind)


def summary(text: str | None) -> str:
    """The first paragraph of a docstring."""
    return (text or "").partition("\n\n")[0]


def choose(name: str, known: list[str], kind: str) -> str:
    """The same name.

    Raises:
        ValueError: it is not among those that are known; the message names the closest of them.
    """
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
    raise ValueError(f"no {kind} {name!r}: {hint}")


def parse(
    options_type: type[Options],
    arguments: list[str],
    prog: str,
    default: Options | None = None,
    description: str | None = None,
) -> Options:
    """Options of a dataclass, by tyro, whose box of errors becomes one line.

    Args:
        options_type: the dataclass.
        arguments: what was given.
        prog: the command.
        default: what options are where they are not given. None: the dataclass's own.
        description: stands above the options in the help. None: the dataclass's.

    Raises:
        SystemExit: help was asked for, and has been shown.
        ValueError: an option that there is not, or that cannot be.
    """
    box = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(box):
            settings = (tyro.conf.FlagConversionOff,)
            return tyro.cli(options_type, args=arguments, prog=prog, description=description, config=settings, **given)
    except SystemExit as exit_:
        if not exit_.code:
            raise
    raise ValueError(f"{_message_in(box.getvalue())}; see {prog} --help")


def _message_in(box: str) -> str:
    """What tyro's error box says. As the terminal allows, it is drawn in colours or without, and with lines or dashes."""
    lines = [re.sub(r"\x1b\[[\d;]*m|[│╭╮╰╯]", "", line).strip() for line in box.splitlines()[1:]]  # the first is the title
    parts = [" ".join(part).strip() for rule, part in groupby(lines, re.compile("[─-]+").fullmatch) if not rule]
    message, *hints = (" ".join(part.split()) for part in parts if part)
    similar = [hint.partition(": ")[2] for hint in hints if hint.startswith(("Perhaps you meant", "Arguments similar to"))]
    flags = re.findall(r"--[\w.-]+", " ".join(similar))
    return message + (f" (did you mean {' or '.join(flags)}?)" if flags else "")


def check_free(file: Path, option: str) -> None:
    """Before any work: a file that a command writes at its end must have a place, and never overwrites another.

    Raises:
        ValueError: it is there already, or its folder is not.
    """
    if file.exists():
        raise ValueError(f"{file} exists: choose another {option}")
    if not file.parent.is_dir():
        raise ValueError(f"there is no folder {file.parent}: make it, or choose another {option}")
