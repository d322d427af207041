"""Starting and resuming a pretraining run: the recipe with its overrides, the run's folder, and what happens along the way."""

import shlex
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evomask.analysis.snapshot import save_images, save_snapshot, take_snapshot
from evomask.data.decode import UnreadableImage
from evomask.data.labelled import fit
from evomask.data.sampler import sample_seed
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import Hook, Moment, train
from evomask.engine.pretrain import PretrainConfig, build_host, normalise, pretraining_task
from evomask.engine.run import create_run, read_run
from evomask.figures.report import write_report
from evomask.models.encoders import Encoder
from evomask.models.export import export_timm, export_transformers
from evomask.models.mae import MAE
from evomask.recipes import RECIPES

SNAPSHOT_IMAGES = 6
SNAPSHOT_STAGES = 12


def pretrain(recipe: str | PretrainConfig, out: str | Path | None = None, **overrides: Any) -> Path:
    """Pretrain: the same as `evomask pretrain`, for notebooks.

    Args:
        recipe: a recipe's name, or a configuration.
        out: the folder to make for the run; None takes the first free of runs/RECIPE, runs/RECIPE-2, ...
        overrides: leaves of the configuration, with two underscores for the dot: `data__root="photos", train__epochs=10`.

    Returns:
        The run's folder: weights under `export/`, curves and masks in `report.html`.

    Raises:
        ValueError: an unknown recipe or leaf, data that cannot be used, a folder that exists.
        Stopped: a signal came; `resume` goes on.
    """
    config = find_recipe(recipe)() if isinstance(recipe, str) else recipe
    for leaf, value in overrides.items():
        config = _with_leaf(config, leaf.split("__"), value)
    run = Path(out) if out is not None else free_folder(Path("runs") / config.recipe)
    host = build_host(config)
    task = pretraining_task(config, host)  # before the folder is made, so that a mistake leaves none behind
    create_run(run, config, command=" ".join(["evomask", *map(shlex.quote, sys.argv[1:])]))
    train(task, config.train, run, run_hooks(config, run, host))
    return run


def resume(run: str | Path) -> Path:
    """Go on with a run exactly where it stopped; a finished one gets its exports and its report again."""
    run = Path(run)
    config = read_run(run, PretrainConfig)
    host = build_host(config)
    train(pretraining_task(config, host), config.train, run, run_hooks(config, run, host), resume=True)
    return run


def find_recipe(name: str) -> Callable[[], PretrainConfig]:
    """The recipe of that name.

    Raises:
        ValueError: there is none; the message names those there are.
    """
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}: there are {', '.join(RECIPES)}")
    return RECIPES[name]


def load_host(run: Path) -> tuple[MAE, PretrainConfig]:
    """The host of a run with its newest weights, in evaluation mode, and the run's configuration."""
    config = read_run(run, PretrainConfig)
    host = build_host(config)
    host.load_state_dict(load_checkpoint(run)["model"])
    return host.eval(), config


def untrained_encoder(config: PretrainConfig) -> Encoder:
    """The encoder of a recipe with the weights that its training starts from."""
    return Encoder.of(build_host(config).encoder.eval(), config.data.mean, config.data.std, f"untrained:{config.recipe}")


def free_folder(wanted: Path) -> Path:
    """`wanted`, or where it exists the first free of wanted-2, wanted-3, ..."""
    number, folder = 1, wanted
    while folder.exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def run_hooks(config: PretrainConfig, run: Path, host: MAE) -> list[Hook]:
    """What happens along the way: pictures of the same images at a dozen stages, and at the end exports and the report."""
    return [_Snapshots(config, run, host), _Exports(config, run, host), _Report(config, run)]


class _Snapshots:
    """Keeps what the model makes of a few images of the training set."""

    def __init__(self, config: PretrainConfig, run: Path, host: MAE):
        self._config, self._run, self._host = config, run, host
        self._epochs = {round(stage * config.train.epochs / SNAPSHOT_STAGES) for stage in range(SNAPSHOT_STAGES + 1)}

    def __call__(self, moment: Moment) -> None:
        if moment.epoch not in self._epochs:
            return
        images, names = self._images
        if not names:  # no file can be read: the loader is about to say so
            return
        patches = self._host.grid[0] * self._host.grid[1]
        generator = torch.Generator().manual_seed(sample_seed(self._config.train.seed, 0))
        noise = torch.rand(len(images), patches, generator=generator)

        device = next(self._host.parameters()).device
        last_epoch = (self._config.train.epochs - 1) / self._config.train.epochs
        snapshot = take_snapshot(
            self._host,
            self._config.masking.build(),
            normalise(images.to(device), self._config.data.mean, self._config.data.std),
            noise.to(device),
            progress=min(moment.progress, last_epoch),
            epoch=moment.epoch,
            step=moment.step,
        )
        folder = self._run / "snapshots"
        folder.mkdir(exist_ok=True)
        save_images(folder / "images.safetensors", images, names)
        save_snapshot(snapshot, folder / f"epoch_{moment.epoch:04d}.safetensors")

    @cached_property
    def _images(self) -> tuple[Tensor, list[str]]:
        """(n, C, H, W) uint8 images from all over the training set, the first readable one of each part, and their names."""
        vit = self._config.host.encoder
        source = self._config.data.source(vit.image_size, vit.in_chans, self._config.train.seed)
        images, names = [torch.empty(0, vit.in_chans, *vit.image_size, dtype=torch.uint8)], []
        for part in range(SNAPSHOT_IMAGES):
            for index in range(part * len(source) // SNAPSHOT_IMAGES, (part + 1) * len(source) // SNAPSHOT_IMAGES):
                try:
                    image = source.image(index)
                except UnreadableImage:
                    continue
                images.append(fit(image, vit.image_size).unsqueeze(0))
                names.append(source.name(index))
                break
        return torch.cat(images), names


class _Exports:
    """Leaves the finished weights as timm and transformers load them."""

    def __init__(self, config: PretrainConfig, run: Path, host: MAE):
        self._config, self._run, self._host = config, run, host

    def __call__(self, moment: Moment) -> None:
        if moment.epoch == self._config.train.epochs:
            for library in EXPORTS:
                try:
                    export(self._host, self._config, library, self._run / "export" / library)
                except ValueError as error:  # a ViT that the library has no words for
                    print(f"evomask: no export to {library}: {error}", file=sys.stderr)


class _Report:
    """Writes the page to look at."""

    def __init__(self, config: PretrainConfig, run: Path):
        self._config, self._run = config, run

    def __call__(self, moment: Moment) -> None:
        if moment.epoch == self._config.train.epochs:
            write_report(self._run)


EXPORTS = ("timm", "transformers")


def export(host: MAE, config: PretrainConfig, library: str, folder: Path) -> None:
    """Write a host's weights as `library` loads them.

    Raises:
        ValueError: no such library, or it has no words for this model.
    """
    if library not in EXPORTS:
        raise ValueError(f"--to must be one of {', '.join(EXPORTS)}, not {library!r}")
    if library == "timm":
        export_timm(host.encoder, config.host.encoder, folder, config.data.mean, config.data.std)
    else:
        export_transformers(host, folder, config.data.mean, config.data.std)


def _with_leaf(config: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    if name not in {field.name for field in fields(config)}:
        known = ", ".join(field.name for field in fields(config))
        raise ValueError(f"{type(config).__name__} has no {name!r}: it has {known}")
    current = getattr(config, name)
    if rest and not is_dataclass(current):
        raise ValueError(f"{name!r} has no {rest[0]!r} below it")
    if name == "root" and isinstance(value, str):
        value = Path(value)
    return replace(config, **{name: _with_leaf(current, rest, value) if rest else value})
