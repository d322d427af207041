"""Evaluations that train, and kNN, come to the same whatever the number of processes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from evomask.engine.metrics import read_metrics
from evomask.models.encoders import TIMM_EXPORT
from evomask.tasks.detections import DETECTIONS

Start = Callable[..., Any]
DATA = ["--encoder", "untrained:demo", "--scenes", "50", "--workers", "0"]
LOOP = ["--loop.epochs", "3", "--loop.batch-size", "16", "--loop.micro-batches", "2", "--loop.log-every", "1"]
TASKS = {
    # 50 and 25 images are not shared out evenly, and what is drawn of mixup, stochastic depth and erasing counts.
    "finetune": ["--ema", "0.8", "--optim.warmup-epochs", "1", "--optim.base-lr", "0.01", *LOOP],
    "linear-probe": ["--rates", "20", "2000", "--optim.warmup-epochs", "1", "--validate-every", "1", *LOOP],
    "detection": [
        *("--image-size", "32", "--validate-every", "1", "--detector.channels", "8", "--detector.roi-samples", "8"),
        *("--detector.proposals", "10", "--detector.min-score", "0", "--optim.base-lr", "0.01", *LOOP),
    ],
    "knn": [],
    # BatchNorm sees a whole batch at a time, however many processes share it.
    "segmentation": [
        *("--crop", "32", "32", "--sides", "32", "64", "--stride", "32", "32", "--drop-path", "0"),
        *("--head-channels", "8", "--auxiliary-channels", "4", "--iterations-per-epoch", "3", "--optim.base-lr", "0.01"),
        *(*LOOP, "--loop.micro-batches", "1"),
    ],
}


@pytest.fixture(scope="module")
def evaluate(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def run(task: str, ranks: int, *options: str) -> Path:
        out = tmp_path_factory.mktemp(task) / "out"
        processes = start(ranks, "evaluate", task, *DATA, *TASKS[task], *options, "--out", str(out))
        assert processes.wait() == [0] * ranks, processes.errors()
        assert processes.output().splitlines()[1:] == [str(out / "result.json")]
        return out

    return run


@pytest.mark.parametrize("task", TASKS)
def test_an_evaluation_is_the_same(task: str, evaluate: Callable[..., Path]) -> None:
    alone = evaluate(task, 1)
    outs = [evaluate(task, 2)]
    if task in ("finetune", "detection"):
        outs.append(evaluate(task, 2, "--loop.parallel", "fsdp", "--loop.checkpoint-activations", "True"))
    for out in outs:
        found, expected = (json.loads((folder / "result.json").read_text())["metrics"] for folder in (out, alone))
        # A pixel may be on the edge between two classes, and two detections be all but equally sure.
        close = {"segmentation": 0.1, "detection": 2}.get(task, 1e-4)
        assert found == pytest.approx(expected, rel=1e-4, abs=close)
        if task != "knn":
            rows = [[row["loss"] for row in read_metrics(folder)] for folder in (out, alone)]
            assert len(rows[0]) == 9
            # Which proposals a detector learns from hangs on comparisons, which rounding may tip.
            assert rows[0] == pytest.approx(rows[1], **({"rel": 0.05} if task == "detection" else {"abs": 1e-5}))
            assert [json.loads(line)["epoch"] for line in (out / "validation.jsonl").read_text().splitlines()] == [1, 2, 3]
        if task in ("finetune", "segmentation"):
            tuned, expected = (load_file(folder / TIMM_EXPORT / "model.safetensors") for folder in (out, alone))
            torch.testing.assert_close(tuned, expected, atol=1e-4, rtol=1e-3)


def test_what_is_detected_is_the_same(evaluate: Callable[..., Path]) -> None:
    """Of a detector that does not learn: the boxes of every image, whichever process has looked at it."""
    still = ["--optim.base-lr", "0", "--loop.epochs", "1"]
    outs = [evaluate("detection", ranks, *still, *how) for ranks, how in ((1, []), (2, []), (2, ["--loop.parallel", "fsdp"]))]
    expected, *others = (rows_of(json.loads((out / DETECTIONS).read_text())) for out in outs)
    assert len(expected[:, 0].unique()) == 25, "in every validation image something is found"
    for found in others:
        nearest = torch.cdist(expected, found, p=torch.inf).amin(dim=1)
        # Boxes that are all but equally sure may suppress one another the other way round.
        assert (nearest < 0.01).float().mean() > 0.97
        assert len(found) == pytest.approx(len(expected), rel=0.03)


def rows_of(detections: list[dict[str, Any]]) -> torch.Tensor:
    """(D, 7): image, class, score in percent, box."""
    rows = [[each["image_id"], each["category_id"], 100 * each["score"], *each["bbox"]] for each in detections]
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("task", ["finetune", "detection"])
def test_sharded_in_bfloat16(task: str, evaluate: Callable[..., Path]) -> None:
    """What `auto` takes on a GPU, in training and in the validations between."""
    runs = [evaluate(task, *how, "--loop.precision", "bfloat16") for how in ((1,), (2, "--loop.parallel", "fsdp"))]
    expected, found = ([row["loss"] for row in read_metrics(run)] for run in runs)
    assert found == pytest.approx(expected, rel=0.1 if task == "detection" else 4e-3)


def test_a_probe_is_not_sharded(start: Start, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "linear-probe", *DATA, *LOOP, "--loop.parallel", "fsdp", "--out", str(out)]
    processes = start(2, *arguments)
    assert processes.wait() == [2, 2]
    assert len(processes.errors()) == 1
    assert "too few weights to be sharded" in processes.errors()[0]
    assert not out.exists()
