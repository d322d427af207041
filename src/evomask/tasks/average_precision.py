"""Average precision of boxes and masks as COCO measures it, by faster-coco-eval."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_DETECTIONS = 100
"""Of an image, that count. With another number COCO's own summary gives -1 for most figures."""
KINDS = {"box": "bbox", "mask": "segm"}
"""What AP is measured of, and what COCO calls it."""
_AREAS = ("all", "small", "medium", "large")

Truth = Mapping[str, Any]
Detection = dict[str, Any]
"""As in COCO's files: `image_id`, `category_id`, `score`, `bbox` (left, top, width, height), `segmentation` (run lengths)."""


@dataclass(frozen=True, eq=False)
class AveragePrecision:
    """What detections of one kind, boxes or masks, come to.

    Attributes:
        precision: (10, 101, classes, 4, 3) by overlap 0.5 to 0.95, recall 0 to 1, class, area and the most detections of an
            image; -1 where there is no object.
        recall: (10, classes, 4, 3), the largest.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def metrics(self) -> dict[str, float]:
        """In percent: `AP` over all overlaps, `AP50`, `AP75`, `AP_small`, `AP_medium`, `AP_large` and `AR`, the recall.

        Small is below 32 x 32 px of area, large from 96 x 96 px. What there is no object for is left out.
        """
        found = {"AP": _mean(self.precision[..., 0, -1])}
        found |= {f"AP{50 + 5 * overlap}": _mean(self.precision[overlap, ..., 0, -1]) for overlap in (0, 5)}
        found |= {f"AP_{name}": _mean(self.precision[..., area, -1]) for area, name in enumerate(_AREAS) if area}
        found["AR"] = _mean(self.recall[..., 0, -1])
        return {name: value for name, value in found.items() if value is not None}

    def by_class(self) -> list[float | None]:
        """AP of each class in percent, in the order of their ids; None where there is no object of it."""
        return [_mean(self.precision[:, :, number, 0, -1]) for number in range(self.precision.shape[2])]


def average_precision(truth: Truth, detections: Sequence[Detection], kind: str) -> AveragePrecision:
    """Judge detections by the truth.

    Args:
        truth: as a COCO json file has it; crowds count neither for nor against.
        detections: of its images.
        kind: "box" or "mask".

    Raises:
        ValueError: faster-coco-eval is not installed.
    """
    coco, evaluation = _library()
    known = coco({name: [dict(entry) for entry in entries] for name, entries in truth.items()})
    # Beside a box the area of a mask would be taken to be the box's.
    judged = [{name: value for name, value in each.items() if name != _LEFT_OUT[kind]} for each in detections]
    found = known.loadRes(judged) if judged else coco(dict(truth) | {"annotations": []})
    evaluator = evaluation(known, found, KINDS[kind], print_function=_say_nothing)
    evaluator.params.maxDets = [1, 10, MAX_DETECTIONS]
    evaluator.evaluate()
    evaluator.accumulate()
    return AveragePrecision(np.asarray(evaluator.eval["precision"]), np.asarray(evaluator.eval["recall"]))


def check_can_be_measured() -> None:
    """Raise a ValueError where what measures AP is not installed: before training, not after it."""
    _library()


_LEFT_OUT = {"box": "segmentation", "mask": "bbox"}


def _library() -> tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        raise ValueError("AP is measured by faster-coco-eval: pip install 'evomask[detection]'") from error
    return COCO, COCOeval_faster


def _mean(values: NDArray[np.float64]) -> float | None:
    there = values[values > -1]
    return round(100 * float(there.mean()), 4) if there.size else None


def _say_nothing(*_: Any) -> None: ...
