"""Evaluating an encoder: the folder of an evaluation, its result, and how one that was stopped goes on."""

import json
import shutil
from pathlib import Path
from typing import Any

from evomask.engine.checkpoint import checkpoints
from evomask.engine.pretrain import PretrainConfig
from evomask.engine.run import create_run, from_dict, read_run
from evomask.figures.classification import calibration, confusion_matrix
from evomask.figures.style import save
from evomask.models.encoders import Encoder, load_encoder
from evomask.recipes.launch import find_recipe, free_folder, untrained_encoder
from evomask.tasks import TASKS
from evomask.tasks.classification import BINS, PREDICTIONS, Predictions
from evomask.tasks.result import make_result_folder, write_result


def encoder_of(spec: str) -> Encoder:
    """The encoder that `spec` names, see `load_encoder`; or `untrained:RECIPE`, or `untrained:RUN`, with the weights that its
    training starts from.
    """
    kind, _, name = spec.partition(":")
    if kind != "untrained":
        return load_encoder(spec)
    return untrained_encoder(read_run(Path(name), PretrainConfig) if Path(name).is_dir() else find_recipe(name)())


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
    encoder = encoder_of(spec)
    out = out or free_folder(Path("results") / task)
    if not TASKS[task].trains:
        make_result_folder(out)
        return _finish(task, spec, encoder, config, out, resume=False)
    create_run(out, config, command, task=task, encoder=spec)
    try:
        return _finish(task, spec, encoder, config, out, resume=False)
    except ValueError:
        if not checkpoints(out):  # a mistake leaves no folder behind that would be in the way of the next try
            shutil.rmtree(out)
        raise


def resume_evaluation(out: Path) -> Path:
    """Go on with an evaluation that trains, exactly where it stopped."""
    record = json.loads((out / "config.json").read_text())
    task, spec = record["task"], record["encoder"]
    config = from_dict(TASKS[task].config, record["config"])
    return _finish(task, spec, encoder_of(spec), config, out, resume=True)


def is_evaluation(folder: Path) -> bool:
    """Whether the folder is that of an evaluation, not of a pretraining run."""
    try:
        return "task" in json.loads((folder / "config.json").read_text())
    except (OSError, ValueError):
        return False


def _finish(task: str, spec: str, encoder: Encoder, config: Any, out: Path, resume: bool) -> Path:
    more = (out, resume) if TASKS[task].trains else ()
    metrics = TASKS[task].evaluate(encoder, config, *more)
    write_result(out / "result.json", task, metrics, {"encoder": spec, "task": config})
    if TASKS[task].trains:
        _draw(out)
    return out


def _draw(out: Path) -> None:
    predictions, classes = Predictions.load(out / PREDICTIONS)
    save(confusion_matrix(predictions.confusion(), classes), out / "confusion.png")
    save(calibration(predictions.logits, predictions.labels, BINS), out / "calibration.png")
