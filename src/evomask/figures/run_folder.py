"""What a run has left in its folder so far, as the pages about it need it."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evomask.engine.metrics import MONITOR, read_metrics
from evomask.figures import curves
from evomask.figures.sliders import Stages, read_stages

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunFolder:
    """A run's folder; everything in it is read when it is first asked for."""

    path: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        """config.json: command, config, versions, machine."""
        try:
            record = json.loads((self.path / "config.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{self.path} is no run folder: it has no config.json that can be read") from error
        if not (isinstance(record, dict) and isinstance(record.get("config"), dict)):
            raise ValueError(f"{self.path} is no run folder: its config.json is of something else")
        return record

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The configuration, flat: {"train.epochs": 300, ...}."""
        return _flat(self.record.get("config", {}))

    @property
    def loop(self) -> dict[str, Any]:
        """How long and how it was trained: of a pretraining `train`, of an evaluation `loop`."""
        config = self.record["config"]
        return config.get("train", config.get("loop", {}))

    @cached_property
    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.jsonl."""
        return read_metrics(self.path)

    @cached_property
    def monitor(self) -> list[dict[str, float]]:
        """The rows of monitor.jsonl."""
        return read_metrics(self.path, MONITOR)

    @cached_property
    def results(self) -> dict[str, dict[str, Any]]:
        """By name: results/NAME.json, and what `evomask evaluate --out RUN/results/NAME` has left; no other json."""
        folder = self.path / "results"
        files = {path.stem: path for path in folder.glob("*.json")}
        files |= {path.parent.name: path for path in folder.glob("*/result.json")}
        return {name: result for name in sorted(files) if (result := _result(files[name])) is not None}

    @cached_property
    def stages(self) -> Stages | None:
        """snapshots/, None where there are none yet."""
        mean, std = self.settings.get("data.mean", [0.5]), self.settings.get("data.std", [0.5])
        return read_stages(self.path / "snapshots", mean, std)

    @property
    def name(self) -> str:
        """The recipe, or where there is none the folder."""
        return str(self.settings.get("recipe") or self.path.resolve().name)

    @property
    def masks_per_image(self) -> int:
        """Of a step: as many times as an image is the log counts it."""
        return self.settings.get("masking.masks_per_tree", 1)

    @property
    def seconds(self) -> float:
        """What the steps took together, 0 where that is not known."""
        batch = self.loop.get("batch_size")
        step, speed = curves.series(self.metrics, "images_per_second")
        return float((np.diff(step, prepend=-1) * batch / speed).sum()) if batch and len(speed) else 0.0

    @property
    def looks_seconds(self) -> float:
        """What the measurements during training took together."""
        return float(sum(curves.series(self.monitor, "monitor_seconds")[1]))


def _result(file: Path) -> dict[str, Any] | None:
    """None, and a word in the log, where it is none: it must not cost a run its report."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict) and isinstance(found.get("metrics"), dict):
        return found
    logger.warning("%s is not the result of an evaluation, and is left out", file)
    return None


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
