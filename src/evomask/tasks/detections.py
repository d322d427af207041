"""What a detector finds in all images of a set, as COCO's files of results have it, and how good that is."""

import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Subset

from evomask.data.instance_crops import WholeInstanceImages, collate
from evomask.data.instances import InstanceSource, to_xywh
from evomask.data.loader import in_order
from evomask.data.rle import encode_masks
from evomask.engine import distributed
from evomask.engine.progress import ProgressBar
from evomask.engine.run import write_atomically
from evomask.models.detector import Detector
from evomask.tasks.average_precision import KINDS, AveragePrecision, Detection, average_precision

DETECTIONS, CLASSES = "detections.json", "classes.json"


@dataclass(frozen=True, eq=False)
class Detections:
    """What was found in the images of a source.

    Attributes:
        source: the images, and the truth about them.
        found: in the order of the images, the surest of each first.
    """

    source: InstanceSource
    found: Sequence[Detection]

    @cached_property
    def judged(self) -> dict[str, AveragePrecision]:
        """By kind, "box" and "mask"."""
        truth = self.source.truth()
        return {kind: average_precision(truth, self.found, kind) for kind in KINDS}

    def metrics(self) -> dict[str, float]:
        """`box_AP`, `mask_AP` and so on in percent, see `AveragePrecision.metrics`."""
        return {f"{kind}_{name}": value for kind, each in self.judged.items() for name, value in each.metrics().items()}

    def save(self, out: Path, classes: list[str]) -> None:
        """Write OUT/detections.json, which COCO's own tools read, and OUT/classes.json, AP of each class.

        There None stands for a class of which there is no object.
        """
        write_atomically(out / DETECTIONS, json.dumps(self.found))
        by_class = {kind: each.by_class() for kind, each in self.judged.items()}
        rows = {
            name: {f"{kind}_AP": values[number] for kind, values in by_class.items()} for number, name in enumerate(classes)
        }
        write_atomically(out / CLASSES, json.dumps(rows, indent=1) + "\n")


@torch.no_grad()
def detect_all(
    detector: Detector,
    source: InstanceSource,
    size: int,
    title: str,
    *,
    device: torch.device,
    batch_size: int,
    workers: int,
) -> Detections:
    """Detections in all images of a source, shared out among the processes there are; all of them in every process.

    Args:
        detector: in evaluation mode, on the device.
        source: the images.
        size: of their longer side, as the detector sees them.
        title: for the progress bar.
        device: to compute on.
        batch_size: images at a time, in each process.
        workers: processes that load images, for each process.
    """
    # As many in each process: a sharded model is computed by all together.
    own = [index % len(source) for index in distributed.own_share(len(source))]
    found: list[list[Detection]] = []
    loader = in_order(Subset(WholeInstanceImages(source, size), own), batch_size, workers, collate)
    with distributed.agreed(), closing(ProgressBar(title, len(own))) as bar:
        for images, sizes in loader:
            sizes = [(height, width) for height, width in sizes.tolist()]
            for each in detector([image.to(device) for image in images], sizes=sizes):
                found.append(_as_coco(source, own[len(found)], each))
            bar.update(len(found))
    everywhere = [each for part in distributed.gathered_objects(found) for each in part]
    return Detections(source, [detection for each in everywhere[: len(source)] for detection in each])


def _as_coco(source: InstanceSource, index: int, found: dict[str, Tensor]) -> list[Detection]:
    outlines = encode_masks(found["masks"][:, 0] > 0.5)
    rows = zip(found["labels"].tolist(), found["scores"].tolist(), to_xywh(found["boxes"]).tolist(), outlines, strict=True)
    image_id = source.image_id(index)
    return [
        {
            "image_id": image_id,
            "category_id": source.category_id(label),
            "score": score,
            "bbox": box,
            "segmentation": outline,
        }
        for label, score, box, outline in rows
    ]
