"""Evaluating an encoder: the folder of an evaluation, its result, and how one that was stopped goes on."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from evomask.engine import distributed, parallel
from evomask.engine.checkpoint import checkpoints
from evomask.engine.loop import share_out
from evomask.engine.run import begun_by_this_job, check_all_see, create_run, from_dict, record_of, write_atomically
from evomask.engine.signals import Stopped
from evomask.figures.classification import calibration, confusion_matrix
from evomask.figures.retrieval import found_images
from evomask.figures.segmentation import segmentations
from evomask.figures.style import save
from evomask.models.encoders import TIMM_EXPORT, Encoder, load_encoder
from evomask.models.export import export_timm
from evomask.recipes.detection_pictures import draw_detections
from evomask.recipes.launch import config_of, free_folder, taken_folders, untrained_encoder
from evomask.tasks import TASKS
from evomask.tasks.classification import BINS, PREDICTIONS, Predictions
from evomask.tasks.finetune import FinetuneConfig
from evomask.tasks.result import RESULT, make_result_folder, write_result
from evomask.tasks.retrieval_result import SHOWN, load_shown
from evomask.tasks.segmentation_metrics import ClassScores, Segmentations


def encoder_of(spec: str) -> Encoder:
    """The encoder that `spec` names, see `load_encoder`; or `untrained:RECIPE`, or `untrained:RUN`, with the weights that its
    training starts from.
    """
    kind, _, name = spec.partition(":")
    if kind != "untrained":
        return load_encoder(spec)
    return untrained_encoder(config_of(name))


def start_evaluation(task: str, spec: str, config: Any, out: Path | None, command: str) -> Path:
    """Evaluate the encoder of that spec; returns the folder, with result.json in it.

    Args:
        task: a name in `TASKS`.
        spec: of the encoder.
        config: the task's.
        out: the folder to make; None takes the first free of results/TASK, results/TASK-2, ...
        command: what to write down as the way to repeat it.

    Raises:
        ValueError: an encoder or images that cannot be used, or a folder that exists.
        Stopped: a signal came; `resume_evaluation` goes on, where the task trains.
    """
    wanted = Path("results") / task
    with distributed.process_group():
        begun = distributed.from_first(lambda: begun_by_this_job(out, taken_folders(wanted), command))
        if begun is not None:
            return resume_evaluation(begun)
        with distributed.agreed():
            encoder = encoder_of(spec)
        folder = distributed.from_first(lambda: out or free_folder(wanted))
        if not TASKS[task].trains:
            distributed.from_first(lambda: make_result_folder(folder))
            try:
                return _finish(task, spec, encoder, config, folder, resume=False)
            finally:
                if distributed.rank() == 0 and not any(folder.iterdir()):
                    folder.rmdir()  # what has failed is not in the way of the next try
        config = replace(config, loop=share_out(config.loop))
        distributed.from_first(lambda: create_run(folder, config, command, task=task, encoder=spec))
        check_all_see(folder)
        try:
            return _finish(task, spec, encoder, config, folder, resume=False)
        except Exception as error:
            # What fails before anything was learnt leaves no folder behind that would be in the way of the next try.
            nothing_learnt = not any(map(checkpoints, (folder, *folder.glob("*/"))))
            if distributed.rank() == 0 and nothing_learnt and not isinstance(error, Stopped):
                shutil.rmtree(folder)
            raise


def resume_evaluation(out: Path) -> Path:
    """Go on with an evaluation that trains, exactly where it stopped."""
    with distributed.process_group():
        with distributed.agreed():
            record = record_of(out)
            try:
                task, spec = record["task"], record["encoder"]
                config = from_dict(TASKS[task].config, record["config"])
            except (KeyError, TypeError, AttributeError) as error:
                said = f"{out / 'config.json'} does not describe an evaluation of this version of evomask ({error!r})"
                raise ValueError(said) from error
            encoder = encoder_of(spec)
        return _finish(task, spec, encoder, config, out, resume=True)


def is_evaluation(folder: Path) -> bool:
    """Whether the folder is that of an evaluation, not of a pretraining run."""
    return "task" in record_of(folder)


def _finish(task: str, spec: str, encoder: Encoder, config: Any, out: Path, resume: bool) -> Path:
    more = (out, resume) if TASKS[task].trains else ()
    metrics = TASKS[task].evaluate(encoder, config, *more)
    tuned = parallel.whole_weights(encoder.model) if TASKS[task].tunes(config) else None
    with distributed.agreed():
        if distributed.rank() == 0:
            if tuned is not None:
                _export(encoder, tuned, out, config)
            write_result(out / RESULT, task, metrics, {"encoder": spec, "task": config})
            if task in PICTURES:
                PICTURES[task](out)
    return out


def _export(encoder: Encoder, weights: dict[str, Tensor], out: Path, config: Any) -> None:
    """Leave the encoder that was tuned as timm loads it, and as `--encoder OUT` names it."""
    shown, classes = (config.shown, Predictions.load(out / PREDICTIONS)[1]) if isinstance(config, FinetuneConfig) else (1.0, ())
    try:
        export_timm(encoder, out / TIMM_EXPORT, weights, shown, classes)
    except (ValueError, OSError) as error:  # a model that timm has no words for, a full disk: the result is not lost for that
        print(f"evomask: no export to timm: {error}", file=sys.stderr)


def _draw_classification(out: Path) -> None:
    predictions, classes = Predictions.load(out / PREDICTIONS)
    save(confusion_matrix(predictions.confusion(), classes), out / "confusion.png")
    save(calibration(predictions.logits, predictions.labels, BINS), out / "calibration.png")


def _draw_retrieval(out: Path) -> None:
    save(found_images(*load_shown(out / SHOWN)), out / "found.png")


def _draw_segmentation(out: Path) -> None:
    found, classes = Segmentations.load(out / PREDICTIONS)
    write_atomically(out / "classes.csv", ClassScores.of(found.confusion).table(classes))
    shown = found.examples()
    pictures = ([each.image for each in shown], [each.labels for each in shown], [each.predicted for each in shown])
    save(segmentations(*pictures, classes), out / "segmentation.png")
    save(confusion_matrix(found.confusion, classes), out / "confusion.png")


PICTURES: dict[str, Callable[[Path], None]] = {
    "linear-probe": _draw_classification,
    "finetune": _draw_classification,
    "retrieval": _draw_retrieval,
    "segmentation": _draw_segmentation,
    "detection": draw_detections,
}
"""By task, what draws into the folder of an evaluation, from what the task has left there."""
