"""`evomask explore`: what a user names -> models, and the page's server."""

import io
import logging
import os
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from evomask.data.scenes import Scenes
from evomask.engine.pretrain import PretrainConfig, build_host, encoder_of_host
from evomask.engine.run import read_run, record_of
from evomask.figures.explorer import Explorer, Model
from evomask.figures.style import to_rgb
from evomask.models.host import Host
from evomask.models.weight_files import MANIFEST, read_shards
from evomask.recipes.evaluation import encoder_of
from evomask.recipes.launch import config_of, load_host

LOOPBACK = ("127.0.0.1", "localhost", "::1")
logger = logging.getLogger("evomask")


def load_model(spec: str) -> Model:
    """The encoder of a spec, see `encoder_of`; of a run, a checkpoint of one or an untrained recipe with its host.

    Raises:
        ValueError: it is none of these or cannot be used, or it is not known how to ask it for its attention.
    """
    found = _host_of(spec)
    if found is None:
        model = Model(encoder_of(spec), None)
    else:
        host, config = found
        model = Model(encoder_of_host(host, config, spec), host)
    _ = model.tap
    return model


def _host_of(spec: str) -> tuple[Host, PretrainConfig] | None:
    kind, _, name = spec.partition(":")
    if kind == "untrained":
        config = config_of(name)
        return build_host(config).eval(), config
    folder = Path(spec)
    if (folder / MANIFEST).is_file():
        config = read_run(folder.resolve().parents[1], PretrainConfig)
        host = build_host(config)
        host.load_state_dict({key.removeprefix("model."): value for key, value in read_shards(folder, "model.").items()})
        return host.eval(), config
    return load_host(folder) if is_run(folder) else None


def is_run(folder: Path) -> bool:
    """Whether it is the folder of a pretraining run with a checkpoint."""
    return "host" in record_of(folder).get("config", {}) and any((folder / "checkpoints").glob("step_*"))


def runs_here() -> list[str]:
    """The runs in ./runs, the newest first."""
    found = [folder for folder in Path("runs").glob("*") if is_run(folder)]
    return [str(folder) for folder in sorted(found, key=lambda folder: -folder.stat().st_mtime)]


def first_image() -> bytes:
    """A scene, so that there is something to see before an image is dropped."""
    return as_png(Scenes((224, 224), 1, split="val").image(0))


def as_png(image: Tensor) -> bytes:
    """(C, H, W) uint8 -> the file."""
    file = io.BytesIO()
    Image.fromarray(to_rgb(image.unsqueeze(0))[0]).save(file, "PNG")
    return file.getvalue()


def explore(encoders: Sequence[str], host: str, port: int | None, show: bool) -> None:
    """Serve the page until Ctrl-C.

    Args:
        encoders: specs to choose from, the first two as they are shown at first.
        host: the address to listen on.
        port: None: the first free one from 7860 on.
        show: open it in the browser.

    Raises:
        ValueError: gradio is not installed, an encoder cannot be used, or the address is taken.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    try:
        import gradio  # noqa: F401
    except ImportError as error:
        raise ValueError("the explorer is a page of gradio: pip install 'evomask[explore]'") from error
    from evomask.recipes.explore_page import build_page
    from evomask.recipes.explore_server import Server

    explorer = Explorer(load_model)
    for spec in encoders[:2]:
        explorer.model(spec)  # a mistake is said before anything is served
    if host not in LOOPBACK:
        logger.warning("whoever reaches %s can have any file of weights on this machine read", host)
    chosen = list(dict.fromkeys([*encoders, *runs_here()])) or ["untrained:vit_small_mae"]
    second = encoders[1] if len(encoders) > 1 else ""
    server = Server(build_page(explorer, chosen, explorer.add(first_image()), second), host, port)
    print(server.address, flush=True)
    if show:
        webbrowser.open(server.address)
    threading.Event().wait()
