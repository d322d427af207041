"""How long trees take: `build_hierarchy` against scipy's `linkage`, image by image, on the attention of an untrained ViT-S.

Prints, for each size of the grid, the median over repetitions in milliseconds an image, and the ratio with its range.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable

import scipy
import torch
from rich.console import Console
from rich.table import Table
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from evomask.data.scenes import Scenes
from evomask.engine.pretrain import DataConfig, normalise
from evomask.masking.affinity import symmetric_attention
from evomask.masking.hierarchy import build_hierarchy
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig

IMAGES, REPETITIONS = 64, 5


def attention(grid: int) -> Tensor:
    """(IMAGES, N, N) symmetric attention over a square grid."""
    torch.manual_seed(0)
    vit = ViTConfig(name="vit_small_patch16_224", image_size=(8 * grid, 8 * grid), patch_size=8)
    host = MAEConfig(encoder=vit).build().eval()
    scenes, data = Scenes(8 * grid, IMAGES), DataConfig()
    images = normalise(torch.stack([scenes.image(index) for index in range(IMAGES)]), data.mean, data.std)
    with torch.no_grad():
        return symmetric_attention(host.affinity(host.embed(images)))


def milliseconds(function: Callable[[], object]) -> float:
    """Of one call, an image."""
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start) / IMAGES


def scipy_trees(affinity: Tensor) -> None:
    """The same trees, one after the other."""
    for matrix in (1 - affinity / affinity.amax()).double().numpy():
        matrix[range(len(matrix)), range(len(matrix))] = 0
        linkage(squareform(matrix, checks=False), "weighted")


table = Table("patches", "evomask, ms", "scipy, ms", "scipy / evomask")
for grid in (7, 14, 24):
    affinity = attention(grid)
    build_hierarchy(affinity)  # the first call pays for what later ones find ready
    times = [
        (milliseconds(lambda a=affinity: build_hierarchy(a)), milliseconds(lambda a=affinity: scipy_trees(a)))
        for _ in range(REPETITIONS)
    ]
    ours, theirs = zip(*times, strict=True)
    ratios = [peer / own for own, peer in times]
    spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    table.add_row(str(grid**2), f"{statistics.median(ours):.2f}", f"{statistics.median(theirs):.2f}", spread)

console = Console()
console.print(table)
threads = f"{torch.get_num_threads()} of {os.cpu_count()} CPU threads"
console.print(f"torch {torch.__version__}, scipy {scipy.__version__}, {platform.machine()}, {threads}, {IMAGES} images")
