"""A small host with a grid that is not square, and what it does to two images at three stages."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from evomask.analysis.snapshot import Snapshot, take_snapshot
from evomask.masking import EvolvedMasking
from evomask.models.mae import MAE, MAEConfig
from evomask.models.vit import ViTConfig

GRID = (3, 4)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


@pytest.fixture(scope="session")
def host() -> MAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = ViTConfig(name="vit_tiny_patch16_224", image_size=(24, 32), patch_size=8, width=24, heads=2, depth=3, registers=2)
        return MAEConfig(encoder=vit, decoder_width=16, decoder_depth=1, decoder_heads=2).build().eval()


@pytest.fixture(scope="session")
def originals() -> torch.Tensor:
    """(2, 3, 24, 32) uint8, dark and pale, without the grey of hidden patches."""
    values = torch.randint(0, 60, (2, 3, 24, 32), generator=torch.Generator().manual_seed(1))
    return torch.stack((values[0], 255 - values[1])).to(torch.uint8)


@pytest.fixture(scope="session")
def images(originals) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (MEAN, STD))
    return (originals / 255 - mean) / std


@pytest.fixture(scope="session")
def snapshots(host, images) -> list[Snapshot]:
    noise = torch.rand(2, 12, generator=torch.Generator().manual_seed(2))
    stages = [(0.0, 0, 0), (0.5, 2, 20), (0.75, 4, 40)]
    return [take_snapshot(host, EvolvedMasking(), images, noise, *stage) for stage in stages]


@pytest.fixture(scope="session")
def colours_of_patches():
    """The colours (H, W, 3), 0 to 255, that a rendered figure shows in the middle of each patch of one of its axes."""

    def read(figure: Figure, ax: Axes, grid: Sequence[int]) -> np.ndarray:
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())
        column, row = np.meshgrid(np.arange(grid[1]) + 0.5, np.arange(grid[0]) + 0.5)
        x, y = ax.transData.transform(np.stack([column.ravel(), row.ravel()], axis=1)).T
        return pixels[(len(pixels) - y).astype(int), x.astype(int), :3].reshape(*grid, 3)

    return read
