"""What the explorer's page is told to show, without a browser, and how encoders and addresses are chosen."""

from pathlib import Path

import numpy as np
import pytest
import torch

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.engine.pretrain import DataConfig, MonitorConfig, PretrainConfig
from evomask.figures.explorer import Explorer
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig
from evomask.recipes.explore import first_image, is_run, load_model
from evomask.recipes.launch import load_host, pretrain

pytest.importorskip("gradio", reason="gradio is not installed")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vit = ViTConfig(image_size=(32, 32), patch_size=8, width=32, depth=2, heads=2)
    config = PretrainConfig(
        recipe="tiny",
        host=MAEConfig(encoder=vit, decoder_width=16, decoder_depth=1, decoder_heads=2),
        data=DataConfig(scenes=8, workers=0),
        optim=OptimConfig(warmup_epochs=0),  # or the only step has a rate of 0
        train=TrainConfig(epochs=1, batch_size=8, device="cpu"),
        monitor=MonitorConfig(every=0),
    )
    return pretrain(config, out=tmp_path_factory.mktemp("explored") / "run")


@pytest.fixture
def explorer() -> Explorer:
    return Explorer(load_model)


def controls(image: str, first: str, second: str = "", depth: int = 50) -> tuple[object, ...]:
    return image, (0.5, 0.5), first, second, depth, 75, 0, 2, "attention", "weighted"


def test_a_run_and_its_checkpoint_are_the_same_model_with_a_decoder(run: Path) -> None:
    (checkpoint,) = (run / "checkpoints").glob("step_*")
    host, _ = load_host(run)
    for spec in (str(run), str(checkpoint)):
        model = load_model(spec)
        assert model.host is not None
        torch.testing.assert_close(model.host.state_dict(), host.state_dict())
    untrained = load_model(f"untrained:{run}")
    assert untrained.host is not None and not untrained.host.decoder_head.weight.equal(host.decoder_head.weight)
    assert load_model(str(run / "export" / "timm")).host is None, "an export has no decoder"
    assert is_run(run) and not is_run(run / "export" / "timm")


def test_a_row_an_encoder(run: Path, explorer: Explorer, tmp_path: Path) -> None:
    from evomask.recipes.explore_page import draw, keep_picture, restore

    image = explorer.add(first_image())
    status, *parts = draw(explorer, True, *controls(image, str(run), f"untrained:{run}"))
    assert status == "" and len(parts) == 2 * 7
    assert all(isinstance(picture, np.ndarray) for row in (parts[2:6], parts[9:13]) for picture in row)
    assert "12 of 16 patches hidden" in parts[6]
    assert draw(explorer, True, *controls(image, str(run)))[8]["visible"] is False, "no second encoder, no second row"
    title, restored, *_ = restore(explorer, *controls(image, str(run)))
    assert "What is restored" in title and restored.shape == parts[2].shape
    title, restored, *_ = restore(explorer, *controls(image, str(run / "export" / "timm")))
    assert "name a run" in title and restored is None
    files, status = keep_picture(explorer, tmp_path, *controls(image, str(run)))
    assert [Path(path).suffix for path in files["value"]] == [".png", ".pdf"] and status == ""
    assert {Path(path).parent for path in files["value"]} == {tmp_path}


def test_mistakes_are_messages(explorer: Explorer, tmp_path: Path) -> None:
    from evomask.recipes.explore_page import draw, keep_picture, take

    (tmp_path / "notes<b>.png").write_text("buy milk")
    _, message = take(explorer, str(tmp_path / "notes<b>.png"))
    assert "notes&lt;b&gt;.png: this is no image that can be read" in message
    image = explorer.add(first_image())
    assert "no encoder &#x27;nowhere&#x27;" in draw(explorer, True, *controls(image, "nowhere"))[0]
    assert "name an encoder" in draw(explorer, True, *controls(image, " "))[0]
    assert "name an encoder" in keep_picture(explorer, tmp_path, *controls(image, ""))[1]


def test_the_page_listens_where_it_is_told_to() -> None:
    from evomask.recipes.explore_server import listen_on

    with listen_on("127.0.0.1", None) as first, listen_on("127.0.0.1", None) as second:
        ports = first.getsockname()[1], second.getsockname()[1]
        assert ports[0] != ports[1] and min(ports) >= 7860
        with pytest.raises(ValueError, match=rf"port {ports[0]} cannot be listened on .*: choose another --host or --port"):
            listen_on("127.0.0.1", ports[0])
