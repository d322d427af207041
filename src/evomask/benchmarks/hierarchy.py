"""Trees: `build_hierarchy` against scipy, fastcluster and the greedy loop of Eq. 9, on the same attention matrices."""

import multiprocessing
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from math import isqrt

import numpy as np
import torch
from torch import Tensor

from evomask.benchmarks.comparison import Comparison, compare
from evomask.data.scenes import Scenes
from evomask.engine import distributed
from evomask.engine.pretrain import DataConfig, normalise
from evomask.masking import build_hierarchy, hierarchy
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
    """A table a size of the grid, in milliseconds an image."""
    try:
        import fastcluster
        from scipy.cluster.hierarchy import linkage
    except ImportError as error:
        raise ValueError(f"{error.name} is what trees are compared with: pip install 'evomask[bench]'") from error

    device = distributed.pick_device(config.device)
    comparisons = []
    for patches in config.patches:
        # No more memory than a batch of 14 x 14 patches takes.
        images = max(2, min(config.images, config.images * 196**2 // patches**2))
        affinity = attention_of_scenes(isqrt(patches), images, device)
        distances = [_condensed_distance(matrix) for matrix in affinity.double().cpu().numpy()]
        processes = _Processes(fastcluster.linkage, distances)
        candidates: dict[str, Callable[[], object]] = {
            "evomask": lambda a=affinity: build_hierarchy(a),
            "fastcluster, one thread": lambda d=distances: [fastcluster.linkage(one, "weighted") for one in d],
            "scipy, one thread": lambda d=distances: [linkage(one, "weighted") for one in d],
        }
        if device.type == "cpu":
            candidates["evomask, one thread"] = lambda a=affinity: _with_threads(1, a)
            candidates["fastcluster, all cores"] = processes
        candidates["evomask's reference in torch"] = lambda a=affinity: reference_trees(a)
        if patches <= GREEDY_PATCHES:
            candidates["greedy loop in torch"] = lambda a=affinity: greedy_merges(a)
        title = f"{patches} patches, {images} images, ms an image"
        with closing(processes):
            comparisons.append(compare(title, candidates, device, config.turns, units=images))
    return comparisons


def attention_of_scenes(grid: int, images: int, device: torch.device) -> Tensor:
    """(images, N, N) symmetric attention over a square grid."""
    torch.manual_seed(0)
    vit = ViTConfig(name="vit_small_patch16_224", image_size=(8 * grid, 8 * grid), patch_size=8)
    host, data = MAEConfig(encoder=vit).build().eval().to(device), DataConfig()
    scenes = Scenes(max(32, 8 * grid), images)
    parts = []
    for first in range(0, images, 16):
        batch = torch.stack([scenes.image(index) for index in range(first, min(images, first + 16))])
        pixels = normalise(batch[..., : 8 * grid, : 8 * grid].to(device), data.mean, data.std)
        with torch.no_grad():
            parts.append(symmetric_attention(host.affinity(host.embed(pixels))))
    return torch.cat(parts)


def greedy_merges(affinity_BNN: Tensor) -> Tensor:
    """(B, N - 1, 2) the slots of each merge of Eq. 9 read literally: the largest entry of all, N - 1 times, batched."""
    similarity = affinity_BNN.clone()
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


def reference_trees(affinity_BNN: Tensor) -> hierarchy.Hierarchy:
    """The trees without a compiled kernel."""
    symmetric = symmetric_attention(affinity_BNN.double())
    return hierarchy.number_by_similarity(*hierarchy.follow_chains(symmetric, "weighted"))


def _with_threads(threads: int, affinity_BNN: Tensor) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    build_hierarchy(affinity_BNN)
    torch.set_num_threads(before)


def _condensed_distance(similarity_NN: np.ndarray) -> np.ndarray:
    """The upper triangle, as scipy and fastcluster take it; made before the clock starts, in their favour."""
    return (similarity_NN.max() - similarity_NN)[np.triu_indices(len(similarity_NN), 1)]


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
