"""Serving the explorer's page, of gradio, in a thread of its own."""

import socket
import threading

import gradio as gr
import torch
import uvicorn
from fastapi import FastAPI
from gradio.themes import Default

from evomask.recipes.explore_page import CSS

FIRST_PORT = 7860
MOST_MEGABYTES = 64
"""Of an image file."""


class Server:
    """Serves a page in a thread of its own until it is closed.

    gradio's own `launch` asks the page for an answer within three seconds, and on a machine with much to do it gives up.

    Args:
        page: the page.
        host: the address to listen on.
        port: None: the first free one from FIRST_PORT on.

    Raises:
        ValueError: the address cannot be listened on.
    """

    def __init__(self, page: gr.Blocks, host: str, port: int | None):
        listener = listen_on(host, port)
        # A browser on this machine needs a core of its own to show what has been drawn, while the next picture is computed.
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
        number = listener.getsockname()[1]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{number}/"
        app = gr.mount_gradio_app(
            FastAPI(),
            page,
            path="/",
            server_name=host,
            server_port=number,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            max_file_size=f"{MOST_MEGABYTES}mb",
            theme=Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
            css=CSS,
        )
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join()


def listen_on(host: str, port: int | None) -> socket.socket:
    """A socket that listens already, so that nobody who comes early is turned away."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = range(FIRST_PORT, FIRST_PORT + 100) if port is None else [port]
    for number in ports:
        try:
            return socket.create_server((host, number), family=family)
        except (OSError, OverflowError) as error:
            last = error
    raise ValueError(f"{host} port {ports[-1]} cannot be listened on ({last}): choose another --host or --port")
