"""A run's folder: made once, never overwritten, and with all that is needed to repeat the run in its config.json."""

import dataclasses
import fcntl
import json
import os
import platform
import socket
import subprocess
import time
import types
import typing
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from evomask.engine import distributed
from evomask.models.weight_files import json_or_nothing

Config = TypeVar("Config")
NETWORK_DISK_SECONDS = 30
"""How long a disk that machines share may take to show on one what another has written."""


def create_run(run: Path, config: Any, command: str, **more: str) -> None:
    """Make the folder and write its config.json, `more` included.

    Raises:
        ValueError: the folder is there already and not empty, or cannot be made.
    """
    if run.is_dir() and any(run.iterdir()):
        hint = f"`evomask resume {run}` goes on with it" if (run / "config.json").exists() else "it is no run"
        raise ValueError(f"{run} exists and is not empty ({hint}): choose another --out")
    make_folder(run)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    if job := distributed.job():
        more["job"] = job
    record = {"command": command, "started": started, **more, "config": to_dict(config)} | provenance()
    write_atomically(run / "config.json", json.dumps(record, indent=2) + "\n")


def make_folder(folder: Path) -> None:
    """Make a folder, where it is not there yet.

    Raises:
        ValueError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder {folder} cannot be made ({error.strerror}): choose another --out") from error


def begun_by_this_job(wanted: Path | None, numbered: list[Path], command: str) -> Path | None:
    """The folder that this command made before torchrun restarted it, or a scheduler its job; None where there is none.

    Args:
        wanted: the folder that the user has named; None: one of `numbered`, the newest that fits.
        numbered: the folders whose names are given where the user gives none.
        command: as it was given.
    """
    if distributed.job() is None:
        return None
    for folder in [wanted] if wanted is not None else reversed(numbered):
        record = record_of(folder)
        if record.get("job") == distributed.job() and record.get("command") == command:
            return folder
    return None


def record_of(folder: Path) -> dict[str, Any]:
    """What config.json says of a folder, whatever made it; nothing where there is none that can be read."""
    return json_or_nothing(folder / "config.json")


def check_all_see(run: Path) -> None:
    """Raise a ValueError in all processes, where one of them does not see the folder that the first has made."""
    with distributed.agreed():
        for _ in range(NETWORK_DISK_SECONDS):
            if (run / "config.json").is_file():
                return
            time.sleep(1)
        raise ValueError(
            f"{socket.gethostname()} does not see {run}: a run's folder must lie on a disk that all machines share, see --out"
        )


def read_run(run: Path, config_type: type[Config]) -> Config:
    """The resolved configuration of a run.

    Raises:
        ValueError: no such run, or one whose config.json does not fit this version.
    """
    path = run / "config.json"
    if not path.is_file():
        raise ValueError(f"{run} is no run folder: it has no config.json")
    try:
        return from_dict(config_type, json.loads(path.read_text())["config"])
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        if task := record_of(run).get("task"):
            raise ValueError(f"{run} is the folder of an evaluation ({task}), and not of what is asked for") from error
        raise ValueError(f"{path} does not describe a run of this version of evomask ({error!r})") from error


def hold_to_samples(run: Path, samples: int) -> None:
    """Keep a run to as many samples as it began with: the order of images, the rates and the depth of masks follow from them.

    Raises:
        ValueError: there are more or fewer now.
    """
    path = run / "samples.json"
    if not path.exists():
        write_atomically(path, json.dumps({"samples": samples}) + "\n")
    elif (began_with := json.loads(path.read_text())["samples"]) != samples:
        raise ValueError(
            f"{run} began with {began_with:,} samples and its data has {samples:,} now: put back what it had, or start anew, "
            "with another --out"
        )


@contextmanager
def sole_use(run: Path) -> Iterator[None]:
    """Keep other processes from training in the same folder. The lock goes when the process does, however it ends.

    Raises:
        ValueError: another process has it.
    """
    # A POSIX lock: unlike flock's, a loader's process that outlives a killed run for a moment does not inherit it.
    with (run / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f"another process is training in {run}: wait for it, or stop it") from error
        yield


def provenance() -> dict[str, Any]:
    """Versions of what computes, the git revision where there is one, and the machine."""
    libraries = ("evomask", "torch", "torchvision", "timm", "numpy", "pillow")
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in libraries},
        "git": _git_revision(),
        "machine": _machine(),
    }


def _machine() -> str:
    gpus = Counter(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
    cores = f"{platform.machine()} {platform.system()}, {os.cpu_count()} cores"
    return ", ".join([cores, *(f"{count} x {name}" for name, count in gpus.items())])


def _git_revision() -> str | None:
    def git(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False, timeout=10)

    try:
        # A package installed in an environment may lie inside a repository that is another project's.
        ours = git("ls-files", "--error-unmatch", Path(__file__).name).returncode == 0
        return git("describe", "--always", "--dirty", "--abbrev=12").stdout.strip() or None if ours else None
    except OSError:  # no git on this machine
        return None


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it is either whole or as it was."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")  # two processes may write the same file
    unfinished.write_text(text)
    unfinished.replace(path)


def to_dict(config: Any) -> Any:
    """A tree of dataclasses as what JSON can hold."""
    if dataclasses.is_dataclass(config):
        return {field.name: to_dict(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, tuple):
        return [to_dict(item) for item in config]
    return str(config) if isinstance(config, Path) else config


def from_dict(annotation: Any, value: Any) -> Any:
    """The inverse of `to_dict`, guided by the types of the dataclass's fields."""
    if value is None:
        return None
    if dataclasses.is_dataclass(annotation):
        types_of = typing.get_type_hints(annotation)
        return annotation(**{name: from_dict(types_of[name], item) for name, item in value.items()})  # type: ignore[operator]
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        several = [argument for argument in arguments if argument is not type(None)]
        if len(several) > 1:  # of dataclasses; one that is older than the choice is of the first kind
            several = [each for each in several if each.kind == value.get("kind", several[0].kind)]
        (annotation,) = several
        return from_dict(annotation, value)
    if origin is tuple:
        if Ellipsis in arguments:  # tuple[float, ...]: any number of one type
            arguments = arguments[:1] * len(value)
        return tuple(from_dict(item_type, item) for item_type, item in zip(arguments, value, strict=True))
    return Path(value) if annotation is Path else value
