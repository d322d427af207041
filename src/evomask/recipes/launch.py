"""Starting and resuming a pretraining run: the recipe with its overrides, the run's folder, and what happens along the way."""

import logging
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from evomask.engine import distributed, parallel
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import FirstProcessHooks, Hook, Task, share_out, train
from evomask.engine.pretrain import PretrainConfig, build_host, encoder_of_host, pretraining_task
from evomask.engine.run import begun_by_this_job, check_all_see, create_run, read_run
from evomask.models.encoders import Encoder
from evomask.models.host import Host
from evomask.models.hosts import pinned
from evomask.recipes import RECIPES
from evomask.recipes.hooks import run_hooks

logger = logging.getLogger("evomask")


def pretrain(recipe: str | PretrainConfig, out: str | Path | None = None, **overrides: Any) -> Path:
    """Pretrain: the same as `evomask pretrain`, for notebooks.

    Args:
        recipe: a recipe's name, or a configuration.
        out: the folder to make for the run; None takes the first free of runs/RECIPE, runs/RECIPE-2, ...
        overrides: leaves of the configuration, with two underscores for the dot: `data__root="photos", train__epochs=10`.

    Returns:
        The run's folder: weights under `export/`, curves and masks in `report.html`, and when it is done `result.json`.

    Raises:
        ValueError: an unknown recipe or leaf, data that cannot be used, a folder that exists.
        Stopped: a signal came; `resume` goes on.
    """
    config = find_recipe(recipe)() if isinstance(recipe, str) else recipe
    for leaf, value in overrides.items():
        config = _with_leaf(config, leaf.split("__"), value)
    arguments = [repr(config.recipe)] + [f"{leaf}={value!r}" for leaf, value in overrides.items()]
    return start(config, Path(out) if out is not None else None, command=f"evomask.pretrain({', '.join(arguments)})")


def start(config: PretrainConfig, out: Path | None, command: str) -> Path:
    """Pretrain as configured; `command` is what to write down as the way to repeat it. For the rest see `pretrain`."""
    wanted = Path("runs") / config.recipe
    with distributed.process_group():
        begun = distributed.from_first(lambda: begun_by_this_job(out, taken_folders(wanted), command))
        if begun is not None:
            logger.info("goes on with %s, which this job has begun", begun)
            return resume(begun)
        run = distributed.from_first(lambda: out if out is not None else free_folder(wanted))
        with distributed.agreed():
            config = replace(config, host=pinned(config.host), train=share_out(config.train))
        task, hooks = _prepare(config, run)  # a mistake leaves no folder behind
        distributed.from_first(lambda: create_run(run, config, command))
        check_all_see(run)
        train(task, config.train, run, hooks)
    return run


def resume(run: str | Path) -> Path:
    """Go on with a run exactly where it stopped; a finished one gets its exports and its report again."""
    run = Path(run)
    with distributed.process_group():
        with distributed.agreed():
            config = read_run(run, PretrainConfig)
            config = replace(config, host=pinned(config.host))
        task, hooks = _prepare(config, run)
        train(task, config.train, run, hooks, resume=True)
    return run


def _prepare(config: PretrainConfig, run: Path) -> tuple[Task, list[Hook]]:
    with distributed.agreed():
        host = build_host(config)
        task = pretraining_task(config, host)
        # Hooks look at a whole model: where it is sharded in training, at another one.
        shown = build_host(config).to(next(host.parameters()).device) if parallel.is_sharded(host) else host
        return task, [FirstProcessHooks(run_hooks(config, run, shown), host, shown)]


def find_recipe(name: str) -> Callable[[], PretrainConfig]:
    """The recipe of that name.

    Raises:
        ValueError: there is none; the message names the closest.
    """
    if name not in RECIPES:
        similar = get_close_matches(name, RECIPES, n=1)
        hint = f"did you mean {similar[0]!r}?" if similar else "`evomask pretrain --help` lists them"
        raise ValueError(f"no recipe {name!r}: {hint}")
    return RECIPES[name]


def config_of(name: str) -> PretrainConfig:
    """The configuration of the run in that folder, or of the recipe of that name.

    Raises:
        ValueError: there is neither.
    """
    if Path(name).is_dir():
        return read_run(Path(name), PretrainConfig)
    if Path(name).name != name:  # a path, so no recipe that was misspelt
        raise ValueError(f"there is no folder {name}")
    return find_recipe(name)()


def load_host(run: Path) -> tuple[Host, PretrainConfig]:
    """The host of a run with its newest weights, in evaluation mode, and the run's configuration."""
    config = read_run(run, PretrainConfig)
    host = build_host(config)
    host.load_state_dict(load_checkpoint(run)["model"])
    return host.eval(), config


def untrained_encoder(config: PretrainConfig) -> Encoder:
    """The encoder of a recipe with the weights that its training starts from."""
    return encoder_of_host(build_host(config).eval(), config, f"untrained:{config.recipe}")


def taken_folders(wanted: Path) -> list[Path]:
    """Those of wanted, wanted-2, wanted-3, ... that exist, in this order."""
    numbered = [path for path in wanted.parent.glob(f"{wanted.name}-*") if path.name.removeprefix(f"{wanted.name}-").isdigit()]
    numbered.sort(key=lambda path: int(path.name.removeprefix(f"{wanted.name}-")))
    return [path for path in (wanted, *numbered) if path.is_dir()]


def free_folder(wanted: Path) -> Path:
    """`wanted`, or where it exists the first free of wanted-2, wanted-3, ..."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _with_leaf(config: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    if name not in {field.name for field in fields(config)}:
        known = ", ".join(field.name for field in fields(config))
        raise ValueError(f"{type(config).__name__} has no {name!r}: it has {known}")
    current = getattr(config, name)
    if rest and not is_dataclass(current):
        raise ValueError(f"{name!r} has no {rest[0]!r} below it")
    kind = get_type_hints(type(config))[name]
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, get_args(kind)))}, not {value!r}")
    if name == "root" and isinstance(value, str):
        value = Path(value)
    return replace(config, **{name: _with_leaf(current, rest, value) if rest else value})
