"""What happens along a pretraining run: measurements, pictures of a few images at a dozen stages; at the end exports, the
result and the report.
"""

import sys
from functools import cached_property, partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from evomask.analysis.snapshot import save_images, save_snapshot, take_snapshot
from evomask.data.sampler import sample_seed
from evomask.data.spread import spread_images
from evomask.engine.loop import Hook, Moment
from evomask.engine.metrics import read_metrics
from evomask.engine.pretrain import PretrainConfig, encoder_of_host, normalise
from evomask.figures.report import write_report
from evomask.models.encoders import EXPORT
from evomask.models.export import export_timm, export_transformers
from evomask.models.host import Host
from evomask.recipes.monitor import Monitor
from evomask.tasks.result import RESULT, write_result

SNAPSHOT_IMAGES = 6
SNAPSHOT_STAGES = 12
EXPORTS = ("timm", "transformers")


def run_hooks(config: PretrainConfig, run: Path, host: Host) -> list[Hook]:
    """The hooks of a run, for the training loop."""
    return [Monitor(config, run, host), _Snapshots(config, run, host), partial(_finish, config, run, host)]


def _finish(config: PretrainConfig, run: Path, host: Host, moment: Moment) -> None:
    """Leave the weights as timm and transformers load them, and the page to look at."""
    if moment.epoch < config.train.epochs:
        return
    for library in EXPORTS:
        try:
            export(host, config, library, run / EXPORT / library)
        except ValueError as error:  # a ViT that the library has no words for
            print(f"evomask: no export to {library}: {error}", file=sys.stderr)
    # Who waits for a run, such as `evomask reproduce`, knows by its result that nothing is left to be computed.
    metrics = {"loss": _last_loss(run), "epochs": config.train.epochs, "steps": moment.step}
    write_result(run / RESULT, "pretrain", metrics, {"pretrain": config})
    write_report(run)


def _last_loss(run: Path) -> float | None:
    """Mean over the logged steps of the last epoch that has any; None: not one of them had a finite loss."""
    losses = [(row["epoch"], row["loss"]) for row in read_metrics(run) if "loss" in row]
    return fmean(loss for epoch, loss in losses if epoch == losses[-1][0]) if losses else None


def export(host: Host, config: PretrainConfig, library: str, folder: Path) -> None:
    """Write a host's weights as `library` loads them.

    Raises:
        ValueError: no such library, or it has no words for this model.
    """
    if library not in EXPORTS:
        raise ValueError(f"--to must be one of {', '.join(EXPORTS)}, not {library!r}")
    if library == "timm":
        export_timm(encoder_of_host(host, config, str(folder)), folder)
    else:
        export_transformers(host, folder, config.data.mean, config.data.std, mask_ratio=config.masking.ratio)


class _Snapshots:
    """Keeps what the model makes of a few images of the training set."""

    def __init__(self, config: PretrainConfig, run: Path, host: Host):
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
        snapshot = take_snapshot(
            self._host,
            self._config.masking.build(),
            normalise(images.to(device), self._config.data.mean, self._config.data.std),
            noise.to(device),
            progress=moment.progress,
            epoch=moment.epoch,
            step=moment.step,
        )
        folder = self._run / "snapshots"
        folder.mkdir(exist_ok=True)
        save_images(folder / "images.safetensors", images, names)
        save_snapshot(snapshot, folder / f"epoch_{moment.epoch:04d}.safetensors")

    @cached_property
    def _images(self) -> tuple[Tensor, list[str]]:
        """(n, C, H, W) uint8 images from all over the training set, and their names."""
        vit = self._config.host.encoder
        source = self._config.data.source(vit.image_size, vit.in_chans, self._config.train.seed)
        images, indices = spread_images(source, vit.image_size, vit.in_chans, SNAPSHOT_IMAGES)
        return images, [source.name(index) for index in indices]
