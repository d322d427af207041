"""One file = one downstream task."""

from collections.abc import Callable
from typing import Any

from evomask.tasks.knn import KnnConfig, evaluate_knn

TASKS: dict[str, tuple[type, Callable[..., dict[str, Any]]]] = {
    "knn": (KnnConfig, evaluate_knn),
}
"""`evomask evaluate NAME`: the task's options, and the function (encoder, options) -> metrics. A task is a line here."""
