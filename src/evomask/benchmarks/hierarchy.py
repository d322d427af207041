"""Trees: `build_hierarchy` against scipy, fastcluster and the greedy loop of Eq. 9, on the same attention matrices."""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from evomask.benchmarks.comparison import Comparison, compare
from evomask.data.scenes import Scenes
from evomask.engine import distributed
from evomask.engine.pretrain import DataConfig, normalise
from evomask.masking import build_hierarchy
from evomask.masking.affinity import symmetric_attention
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig

GREEDY_PATCHES = 196
"""The greedy loop takes N^3 steps: no larger grid is waited for."""


@dataclass(frozen=True, kw_only=True)
class HierarchyConfig:
    """Attention of an untrained ViT-S to scenes, whose trees are the hardest: they chain.

    Attributes:
        patches: of an image, square numbers.
        images: in a batch; of grids larger than 14 x 14 fewer, so that they take as much memory.
        turns: of all candidates, over which medians are taken.
        device: "auto", "cpu", "cuda".
    """

    patches: tuple[int, ...] = (49, 196, 576, 1024)
    images: int = 256
    turns: int = 7
    device: str = "auto"

    def __post_init__(self):
        for patches in self.patches:
            if patches < 16 or isqrt(patches) ** 2 != patches:
                raise ValueError(f"--patches are square numbers from 16 on, not {patches}")
        if min(self.images, self.turns) < 1:
            raise ValueError("--images and --turns must be at least 1")


def compare_hierarchies(config: HierarchyConfig) -> list[Comparison]:
    """Milliseconds that the tree of an image takes, by what builds it; a table for each size of the grid."""
    device = distributed.pick_device(config.device)
    try:
        import fastcluster
        from scipy.cluster.hierarchy import linkage
    except ImportError as error:
        raise ValueError(f"{error.name} is what trees are compared with: pip install 'evomask[bench]'") from error

    comparisons = []
    for patches in config.patches:
        # No more memory than a batch of 14 x 14 patches takes.
        images = max(2, min(config.images, config.images * 196**2 // patches**2))
        attention = attention_of_scenes(isqrt(patches), images, device)
        matrices = list(attention.cpu().numpy())
        distances = [condensed_distance(matrix) for matrix in matrices]
        pools = {
            "fastcluster, all cores": _Processes(fastcluster_trees, matrices),
            "fastcluster, all cores, distances ready": _Processes(fastcluster.linkage, distances),
        }
        candidates: dict[str, Callable[[], object]] = {
            "evomask": lambda a=attention: build_hierarchy(a),
            "fastcluster, one thread": lambda m=matrices: [fastcluster_trees(one, "weighted") for one in m],
            "fastcluster, one thread, distances ready": lambda d=distances: [fastcluster.linkage(one, "weighted") for one in d],
            "scipy, one thread, distances ready": lambda d=distances: [linkage(one, "weighted") for one in d],
        }
        if device.type == "cpu":
            candidates |= {"evomask, one thread": lambda a=attention: _with_threads(1, a)} | pools
        candidates["evomask's reference in torch"] = lambda a=attention: build_hierarchy(a, backend="torch")
        if patches <= GREEDY_PATCHES:
            candidates["greedy loop in torch"] = lambda a=attention: greedy_merges(a)
        title = f"{patches} patches, {images} images, ms an image"
        with ExitStack() as stack:
            for pool in pools.values():
                stack.enter_context(closing(pool))
            comparisons.append(compare(title, candidates, device, config.turns, units=images))
    return comparisons


def fastcluster_trees(attention_NN: np.ndarray, linkage: str) -> np.ndarray:
    """What a user of fastcluster does to come from attention to a tree."""
    import fastcluster

    return fastcluster.linkage(condensed_distance(attention_NN), linkage)


def condensed_distance(attention_NN: np.ndarray) -> np.ndarray:
    """The upper triangle of distances in float64, as scipy and fastcluster take it."""
    from scipy.spatial.distance import squareform

    attention_NN = attention_NN.astype(np.float64)
    similarity_NN = (attention_NN + attention_NN.T) / 2
    return squareform(similarity_NN.max() - similarity_NN, checks=False)


def attention_of_scenes(grid: int, images: int, device: torch.device) -> Tensor:
    """(images, N, N) mean attention between the patches of a square grid."""
    torch.manual_seed(0)
    vit = ViTConfig(name="vit_small_patch16_224", image_size=(8 * grid, 8 * grid), patch_size=8)
    host, data = MAEConfig(encoder=vit).build().eval().to(device), DataConfig()
    scenes = Scenes(max(32, 8 * grid), images)
    parts = []
    for first in range(0, images, 16):
        batch = torch.stack([scenes.image(index) for index in range(first, min(images, first + 16))])
        pixels = normalise(batch[..., : 8 * grid, : 8 * grid].to(device), data.mean, data.std)
        with torch.no_grad():
            parts.append(host.affinity(host.embed(pixels)))
    return torch.cat(parts)


def greedy_merges(affinity_BNN: Tensor) -> Tensor:
    """(B, N - 1, 2) the slots of each merge of Eq. 9 read literally: the largest entry of all, N - 1 times, batched."""
    similarity = symmetric_attention(affinity_BNN)
    batch, patches, _ = similarity.shape
    image = torch.arange(batch, device=similarity.device)
    similarity.diagonal(dim1=1, dim2=2).fill_(-torch.inf)
    merges = []
    for _ in range(patches - 1):
        best = similarity.flatten(1).argmax(dim=1)
        kept, dead = best // patches, best % patches
        union = (similarity[image, kept] + similarity[image, dead]) / 2
        union[image, kept] = -torch.inf
        similarity[image, kept] = union
        similarity[image, :, kept] = union
        similarity[image, dead] = -torch.inf
        similarity[image, :, dead] = -torch.inf
        merges.append(torch.stack((kept, dead), dim=1))
    return torch.stack(merges, dim=1)


def _with_threads(threads: int, affinity_BNN: Tensor) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    build_hierarchy(affinity_BNN)
    torch.set_num_threads(before)


class _Processes:
    """One forked process a core, which has the matrices already when the clock starts: nothing is sent but the end."""

    def __init__(self, cluster: Callable[[np.ndarray, str], object], distances: list[np.ndarray]):
        self._cores = os.cpu_count() or 1
        fork = multiprocessing.get_context("fork")
        self._pool = fork.Pool(self._cores, initializer=_WORK.append, initargs=((cluster, distances),))

    def __call__(self) -> None:
        self._pool.map(_cluster_share, [(core, self._cores) for core in range(self._cores)], chunksize=1)

    def close(self) -> None:
        self._pool.terminate()


_WORK: list[tuple[Callable[[np.ndarray, str], object], list[np.ndarray]]] = []
"""What a forked process is to do; empty in the process that compares."""


def _cluster_share(share: tuple[int, int]) -> None:
    first, step = share
    cluster, distances = _WORK[-1]
    for one in distances[first::step]:
        cluster(one, "weighted")
