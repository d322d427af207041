"""The demonstration from nothing to a report, with a recipe that is smaller still."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from evomask.recipes import demonstration
from evomask.recipes.mae import demo
from evomask.tasks.knn import KnnConfig


@pytest.fixture
def small_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = demo()
    vit = replace(config.host.encoder, image_size=(32, 32), width=32, depth=2, heads=2)
    config = replace(
        config,
        host=replace(config.host, encoder=vit, decoder_width=16, decoder_depth=1, decoder_heads=2),
        data=replace(config.data, scenes=32, workers=0),
        train=replace(config.train, epochs=2, batch_size=16, device="cpu"),
    )
    monkeypatch.setattr(demonstration, "demo", lambda: config)
    monkeypatch.setattr(demonstration, "KnnConfig", partial(KnnConfig, scenes=40, workers=0, device="cpu"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("small_demo")
def test_it_compares_pretrained_with_untrained_and_ends_in_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    run = demonstration.run_demo(None)
    assert run == Path("runs/demo")
    lines = [line for line in capsys.readouterr().out.splitlines() if line]
    assert lines[0] == "kNN accuracy on scenes that were not trained on, in percent:"
    assert [line.split()[0] for line in lines[1:4]] == ["untrained", "pretrained", "majority"]
    assert lines[4] == "runs/demo/report.html"

    results = {path.stem: json.loads(path.read_text()) for path in (run / "results").iterdir()}
    assert set(results) == {"knn", "knn_untrained"}
    assert results["knn_untrained"]["config"]["encoder"] == "untrained:demo"
    assert results["knn"]["config"]["encoder"] == "runs/demo"
    shown = [float(line.split()[1]) for line in lines[1:4]]
    metrics = [results["knn_untrained"]["metrics"], results["knn"]["metrics"]]
    assert shown == pytest.approx([metrics[0]["top1"], metrics[1]["top1"], metrics[1]["majority"]], abs=0.05)
    assert (run / "report.html").exists()


@pytest.mark.usefixtures("small_demo")
def test_a_second_one_takes_another_folder_and_a_named_one_is_obeyed(tmp_path: Path) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    assert demonstration.run_demo(None) == Path("runs/demo-2")
    assert demonstration.run_demo(Path("mine")) == Path("mine")
    with pytest.raises(ValueError, match="mine exists and is not empty"):
        demonstration.run_demo(Path("mine"))
