"""One file = one downstream task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from evomask.tasks.counting import CountingConfig, evaluate_counting
from evomask.tasks.detection import DetectionConfig, detection
from evomask.tasks.finetune import FinetuneConfig, finetune
from evomask.tasks.hierarchy import HierarchyConfig, evaluate_hierarchy
from evomask.tasks.identification import IdentificationConfig, evaluate_identification
from evomask.tasks.knn import KnnConfig, evaluate_knn
from evomask.tasks.linear_probe import LinearProbeConfig, linear_probe
from evomask.tasks.retrieval import RetrievalConfig, retrieval
from evomask.tasks.segmentation import SegmentationConfig, segmentation
from evomask.tasks.visual_language import VisualLanguageConfig
from evomask.tasks.vqa import VqaConfig, evaluate_vqa


@dataclass(frozen=True)
class EvaluationTask:
    """A task of `evomask evaluate`.

    Attributes:
        config: the type of its options.
        evaluate: (encoder, options) -> metrics; of a task that trains, (encoder, options, folder, resume) -> metrics.
        trains: whether it trains, that is, leaves a folder that can be resumed.
        tunes: whether with such options the encoder is trained, too.
    """

    config: type
    evaluate: Callable[..., dict[str, Any]]
    trains: bool = False
    tunes: Callable[[Any], bool] = lambda config: False


def _unless_frozen(config: SegmentationConfig | DetectionConfig) -> bool:
    return not config.frozen


def _if_tuned_jointly(config: VisualLanguageConfig) -> bool:
    return config.tune_encoder


TASKS: dict[str, EvaluationTask] = {
    "knn": EvaluationTask(KnnConfig, evaluate_knn),
    "linear-probe": EvaluationTask(LinearProbeConfig, linear_probe, trains=True),
    "finetune": EvaluationTask(FinetuneConfig, finetune, trains=True, tunes=lambda config: True),
    "segmentation": EvaluationTask(SegmentationConfig, segmentation, trains=True, tunes=_unless_frozen),
    "detection": EvaluationTask(DetectionConfig, detection, trains=True, tunes=_unless_frozen),
    "hierarchy": EvaluationTask(HierarchyConfig, evaluate_hierarchy),
    "retrieval": EvaluationTask(RetrievalConfig, retrieval, trains=True, tunes=lambda config: config.finetune),
    "vqa": EvaluationTask(VqaConfig, evaluate_vqa, trains=True, tunes=_if_tuned_jointly),
    "counting": EvaluationTask(CountingConfig, evaluate_counting, trains=True, tunes=_if_tuned_jointly),
    "identification": EvaluationTask(IdentificationConfig, evaluate_identification, trains=True, tunes=_if_tuned_jointly),
}
"""By name. A further task is a line here."""


def task_of(config: Any) -> str:
    """The name of the task that has such options."""
    return next(name for name, task in TASKS.items() if type(config) is task.config)
