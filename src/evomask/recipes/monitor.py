"""What a model has learnt so far, measured every few epochs while it trains: RUN/monitor.jsonl, a row a look."""

import logging
import time
from contextlib import closing
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from evomask.analysis.attention_distance import mean_attention_distance
from evomask.analysis.rankme import rankme
from evomask.data.images import ImageSource
from evomask.data.layouts import open_images
from evomask.data.scenes import Scenes
from evomask.data.spread import spread_images
from evomask.engine.loop import Moment
from evomask.engine.metrics import MONITOR, MetricsLog
from evomask.engine.pretrain import PretrainConfig, encoder_of_host, normalise
from evomask.models.host import Host
from evomask.tasks.knn import leave_one_out_accuracy

BATCH_SIZE = 64
logger = logging.getLogger("evomask")


class Monitor:
    """A hook of the training loop. A row holds `step`, `epoch`, and

    - `knn`, where there are labels: top-1 accuracy in percent of a leave-one-out kNN vote (k = 20, temperature 0.07);
    - `rankme`: how many dimensions the features use;
    - `attention_distance`: how far patches look in the attention that masks are made of, in sides of a patch;
    - `monitor_seconds`: what the look took.

    Args:
        config: of the run.
        run: its folder.
        host: the model in training.

    Raises:
        ValueError: the held-out images cannot be used.
    """

    def __init__(self, config: PretrainConfig, run: Path, host: Host):
        self._config, self._run, self._host = config, run, host
        self._source = _images_to_look_at(config)

    def __call__(self, moment: Moment) -> None:
        """Measure, where it is time to."""
        every, epochs = self._config.monitor.every, self._config.train.epochs
        if every == 0 or (moment.epoch % every and moment.epoch < epochs):
            return
        started = time.perf_counter()
        images, labels = self._images
        if len(images) < 2:  # no file can be read: the loader is about to say so
            return
        features, distance = self._look(images)
        measured = {} if labels is None else {"knn": leave_one_out_accuracy(features, labels)}
        measured |= {"rankme": rankme(features), "attention_distance": distance}
        row = {"step": moment.step, "epoch": moment.epoch} | measured
        with closing(MetricsLog(self._run, moment.step, MONITOR)) as log:
            log.write(row | {"monitor_seconds": time.perf_counter() - started})
        logger.info("after epoch %d: %s", moment.epoch, ", ".join(f"{name} {value:.4g}" for name, value in measured.items()))

    @torch.no_grad()
    def _look(self, images: Tensor) -> tuple[Tensor, float]:
        """(n, D) features, the mean over patches, on the CPU; and the mean attention distance."""
        encoder = encoder_of_host(self._host, self._config, "the encoder in training")
        device = next(self._host.parameters()).device
        features, distances = [], []
        for part in images.split(BATCH_SIZE):
            normalised = normalise(part.to(device), encoder.mean, encoder.std)
            features.append(encoder.features(normalised).float().cpu())
            affinity = self._host.affinity(self._host.embed(normalised))
            distances.append(mean_attention_distance(affinity, self._host.grid).cpu())
        return torch.cat(features), torch.cat(distances).mean().item()

    @cached_property
    def _images(self) -> tuple[Tensor, Tensor | None]:
        """(n, C, H, W) uint8, the same at every look; and their labels (n,), where there are any to be looked at."""
        vit = self._config.host.encoder
        images, indices = spread_images(self._source, vit.image_size, vit.in_chans, self._config.monitor.images)
        labels = [self._source.label(index) for index in indices] if _has_labels(self._config) else None
        return images, None if labels is None else torch.tensor(labels)


def _images_to_look_at(config: PretrainConfig) -> ImageSource:
    vit, data, root = config.host.encoder, config.data, config.monitor.root
    if root is not None:
        source = open_images(root, channels=vit.in_chans)
        if not source.classes:
            raise ValueError(
                f"the images of --monitor.root {root} have no labels: put those of each class in a folder of its own"
            )
        return source
    if data.root is None:
        return Scenes(vit.image_size, config.monitor.images, seed=config.train.seed, split="val", channels=vit.in_chans)
    return data.source(vit.image_size, vit.in_chans, config.train.seed)


def _has_labels(config: PretrainConfig) -> bool:
    """Labels that the names of a training set's folders may hint at are left alone."""
    return config.monitor.root is not None or config.data.root is None
