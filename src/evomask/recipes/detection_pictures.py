"""Pictures of an evaluation by detection, from what it has left in its folder."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

from evomask.data.instances import Instances, InstanceSource
from evomask.data.rle import decode_mask
from evomask.data.spread import spread
from evomask.engine.run import read_run
from evomask.figures.detection import DetectedImage, beside_truth
from evomask.figures.style import save
from evomask.tasks.average_precision import Detection
from evomask.tasks.detection import DetectionConfig
from evomask.tasks.detections import DETECTIONS

SHOWN = 6
"""Images, from all over the validation images."""
SURE = 0.5
"""Scores from which on detections are drawn."""


def draw_detections(out: Path) -> None:
    """Write OUT/detections.png."""
    source = read_run(out, DetectionConfig).validation_source(channels=3)
    found: dict[int, list[Detection]] = defaultdict(list)
    for each in json.loads((out / DETECTIONS).read_text()):
        if each["score"] >= SURE:
            found[each["image_id"]].append(each)
    pictures = [_detected(source, index, found[source.image_id(index)]) for index in spread(SHOWN, len(source))]
    save(beside_truth(pictures, source.classes), out / "detections.png")


def _detected(source: InstanceSource, index: int, found: Sequence[Detection]) -> DetectedImage:
    image, truth = source.image(index), source.instances(index)
    size = image.shape[-2], image.shape[-1]
    if not found:
        return DetectedImage(image, truth, Instances.none(size), torch.zeros(0))
    label_of = {source.category_id(label): label for label in range(1, len(source.classes) + 1)}
    left, top, width, height = torch.tensor([each["bbox"] for each in found]).unbind(1)
    instances = Instances(
        torch.stack((left, top, left + width, top + height), dim=1),
        torch.tensor([label_of[each["category_id"]] for each in found]),
        torch.stack([decode_mask(each["segmentation"], size) for each in found]),
    )
    return DetectedImage(image, truth, instances, torch.tensor([each["score"] for each in found]))
