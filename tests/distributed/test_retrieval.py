"""Descriptors are learnt, and found by, the same whatever the number of processes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evomask.engine.metrics import read_metrics

OPTIONS = "--encoder untrained:demo --instances 5 --views 3 --workers 0 --finetune True --arcface.width 8 --arcface.lr 0.05"
OPTIONS += " --loop.epochs 2 --loop.batch-size 4 --loop.micro-batches 2 --loop.log-every 1 --loop.device cpu --scales 1 1.5"


def test_an_evaluation_is_the_same(start: Callable[..., Any], tmp_path: Path) -> None:
    outs = []
    for ranks, more in ((1, []), (2, []), (2, ["--loop.checkpoint-activations", "True"])):
        outs.append(tmp_path / str(len(outs)))
        processes = start(ranks, "evaluate", "retrieval", *OPTIONS.split(), *more, "--out", str(outs[-1]))
        assert processes.wait() == [0] * ranks, "\n".join(processes.errors())
        assert processes.output().splitlines()[1:] == [str(outs[-1] / "result.json")]
    alone, *others = outs
    for out in others:
        rows = [[row["loss"] for row in read_metrics(folder)] for folder in (out, alone)]
        assert len(rows[0]) == 6
        assert rows[0] == pytest.approx(rows[1], abs=1e-4)
        for name in ("queries", "gallery"):  # five and ten images are not shared out evenly
            found, expected = (np.load(folder / f"descriptors/{name}.npy") for folder in (out, alone))
            assert found == pytest.approx(expected, abs=1e-4)
        metrics = [json.loads((folder / "result.json").read_text())["metrics"] for folder in (out, alone)]
        assert metrics[0] == pytest.approx(metrics[1], abs=0.5)
