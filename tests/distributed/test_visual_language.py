"""What a language model sees is learnt, and asked for, the same whatever the number of processes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomask.engine.metrics import read_metrics

pytest.importorskip("transformers")

OPTIONS = "--encoder untrained:demo --scenes 12 --workers 0 --tune-encoder True --language full --new-tokens 2"
OPTIONS += " --small.epochs 1 --small.batch-size 8 --small.facts 2 --small.model.width 16 --small.model.depth 1"
OPTIONS += " --small.model.heads 2 --resampler.latents 2 --resampler.depth 1 --resampler.heads 2 --resampler.head-width 8"
OPTIONS += " --loop.epochs 2 --loop.batch-size 8 --loop.micro-batches 2 --loop.log-every 1 --loop.device cpu"


def test_an_evaluation_is_the_same(start: Callable[..., Any], tmp_path: Path) -> None:
    alone, spread = tmp_path / "alone", tmp_path / "spread"
    for ranks, out in ((1, alone), (2, spread)):
        processes = start(ranks, "evaluate", "identification", *OPTIONS.split(), "--out", str(out))
        assert processes.wait() == [0] * ranks, "\n".join(processes.errors())
        assert processes.output().splitlines()[1:] == [str(out / "result.json")]
    for folder in ("language_model", "."):  # from text alone, and from images
        losses = [[row["loss"] for row in read_metrics(out / folder)] for out in (alone, spread)]
        assert len(losses[0]) > 4
        assert losses[1] == pytest.approx(losses[0], abs=1e-5)
    found, expected = (json.loads((out / "result.json").read_text())["metrics"] for out in (spread, alone))
    assert found == pytest.approx(expected)
    said = [(out / "answers.jsonl").read_text() for out in (alone, spread)]
    assert said[0] == said[1]
