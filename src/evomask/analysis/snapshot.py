"""A snapshot: what a model does to a few fixed images at one moment of training. A run keeps them in RUN/snapshots/:

images.safetensors        the images themselves, once
epoch_0000.safetensors    the first stage, before training
epoch_0012.safetensors    a later one: the same images and the same noise, so only the model and the depth have changed
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from evomask.masking import Hierarchy, MaskingStrategy, build_hierarchy
from evomask.models.host import Host

_TREE = ("parent", "level", "size", "children", "similarity")


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """One stage of training, for n images of N patches. All tensors are on the CPU.

    Attributes:
        masked: (n, N) bool, True = hidden from the encoder.
        hierarchy: the trees that the masks were cut from; for masks that have none, the trees of the same attention.
        depth: (n,) long, the level at which the trees were cut; None for masks that cut none.
        reconstruction: (n, C, H, W) float16, normalised as the input: hidden patches as the host restores them, visible
            ones as they are. None for a host that restores no pixels.
        grid: rows and columns of patches, H x W = N.
        epoch: 0 before training.
        step: optimiser steps taken.
        progress: the share of training that the masks were made for, in [0, 1).
    """

    masked: Tensor
    hierarchy: Hierarchy
    depth: Tensor | None
    reconstruction: Tensor | None
    grid: tuple[int, int]
    epoch: int
    step: int
    progress: float

    @property
    def height(self) -> Tensor:
        """(n,) long, the trees' heights."""
        return self.hierarchy.height


@torch.no_grad()
def take_snapshot(
    host: Host, masking: MaskingStrategy, images: Tensor, noise: Tensor, progress: float, epoch: int, step: int
) -> Snapshot:
    """Mask the images and restore them, and leave no trace: no gradient, no random draw, the host's mode as before.

    Args:
        host: its pixels are shown where it restores some.
        masking: any strategy.
        images: (n, C, H, W) normalised, on the host's device.
        noise: (n, N) uniform in [0, 1), the same at every stage, so that masks change by learning and depth alone.
        progress: t / T in [0, 1).
        epoch: 0 before training.
        step: optimiser steps taken.

    Raises:
        NonFiniteAffinity: the host's attention is no longer finite.
    """
    with _evaluation(host):
        affinity = host.affinity(host.embed(images))
        mask = masking(noise, grid=host.grid, progress=progress, affinity=affinity if masking.needs_affinity else None)
        hierarchy = build_hierarchy(affinity) if mask.hierarchy is None else mask.hierarchy
        restored = host.reconstruct(images, mask)
        # Half precision has a step of 0.002 in this range, an eighth of a grey level.
        reconstruction = None if restored is None else restored.half().cpu()
    return Snapshot(
        masked=mask.masked.cpu(),
        hierarchy=Hierarchy(**{name: getattr(hierarchy, name).cpu() for name in _TREE}),
        depth=None if mask.depth is None else mask.depth.cpu(),
        reconstruction=reconstruction,
        grid=host.grid,
        epoch=epoch,
        step=step,
        progress=progress,
    )


@contextmanager
def _evaluation(host: Host) -> Iterator[None]:
    # Each module by itself: `host.train()` would also wake parts that were frozen in evaluation mode.
    modes = [(module, module.training) for module in host.modules()]
    host.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def save_snapshot(snapshot: Snapshot, path: Path) -> None:
    """Write one stage as safetensors. Whoever reads meanwhile sees the old file or the new one, never half of it."""
    optional = {"depth": snapshot.depth, "reconstruction": snapshot.reconstruction}
    tensors = {name: getattr(snapshot.hierarchy, name) for name in _TREE} | {"masked": snapshot.masked}
    facts = {"grid": snapshot.grid, "epoch": snapshot.epoch, "step": snapshot.step, "progress": snapshot.progress}
    _save(path, tensors | {name: tensor for name, tensor in optional.items() if tensor is not None}, facts)


def load_snapshot(path: Path) -> Snapshot:
    """Read what `save_snapshot` wrote.

    Raises:
        ValueError: it is another kind of file.
    """
    tensors, facts = _load(path, needs=(*_TREE, "masked"))
    return Snapshot(
        masked=tensors["masked"],
        hierarchy=Hierarchy(**{name: tensors[name] for name in _TREE}),
        depth=tensors.get("depth"),
        reconstruction=tensors.get("reconstruction"),
        grid=(facts["grid"][0], facts["grid"][1]),
        epoch=facts["epoch"],
        step=facts["step"],
        progress=facts["progress"],
    )


def load_snapshots(folder: Path, most: int) -> list[Snapshot]:
    """At most so many stages in RUN/snapshots, spread evenly, in the order of training; none where there are none yet."""
    stages = sorted(map(load_snapshot, folder.glob("epoch_*.safetensors")), key=lambda snapshot: snapshot.step)
    return [stages[round(place)] for place in torch.linspace(0, len(stages) - 1, min(most, len(stages))).tolist()]


def save_images(path: Path, images: Tensor, names: Sequence[str]) -> None:
    """Write the images that all snapshots of a run show, (n, C, H, W) uint8, and a name for each, such as its path."""
    assert images.dtype == torch.uint8 and len(images) == len(names)
    _save(path, {"images": images}, {"names": list(names)})


def load_images(path: Path) -> tuple[Tensor, list[str]]:
    """Read what `save_images` wrote.

    Raises:
        ValueError: it is another kind of file.
    """
    tensors, facts = _load(path, needs=("images",))
    return tensors["images"], facts["names"]


def _save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    # safetensors' metadata are strings, and a file holds contiguous tensors only.
    metadata = {name: json.dumps(fact) for name, fact in facts.items()}
    save_file({name: tensor.contiguous().cpu() for name, tensor in tensors.items()}, temporary, metadata)
    os.replace(temporary, path)


def _load(path: Path, needs: Sequence[str]) -> tuple[dict[str, Tensor], dict]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            facts = {name: json.loads(fact) for name, fact in (file.metadata() or {}).items()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} cannot be read as a snapshot: {error}") from error
    if missing := [name for name in needs if name not in tensors]:
        raise ValueError(f"{path} is no snapshot: it holds no {', '.join(missing)}")
    return tensors, facts
