"""The trees of hierarchy.py for a CPU, compiled by numba: an image a thread, a matrix a thread, no temporary of a batch.

Same algorithm, same float64 arithmetic in the same order, hence the same trees, ties included. What differs is how a row's
largest entry is found: compilers vectorise a search among integers, not among floats, so the bits of a similarity are read as
an integer that is ordered as the similarity is.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

_LEAST, _LARGEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_ALL_BUT_SIGN, _SIGN_BIT = np.int64(_LARGEST), np.int64(63)
_WIDTH = 16  # numbers that the vector loops take at a time


def build_trees(affinity_BNN: Tensor, linkage: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
    """The fields of the `Hierarchy` that `build_hierarchy` makes of a float tensor on the CPU; None where it is not finite."""
    batch, patches, _ = affinity_BNN.shape
    dtype = torch.float64 if affinity_BNN.dtype == torch.float64 else torch.float32
    affinity = affinity_BNN.detach().to(dtype).contiguous().numpy()
    parent_BM, level_BM, size_BM = (np.ones((batch, 2 * patches - 1), dtype=np.int64) for _ in range(3))
    children_BK2 = np.empty((batch, patches - 1, 2), dtype=np.int64)
    similarity_BK = np.empty((batch, patches - 1))
    trees = (parent_BM, level_BM, size_BM, children_BK2, similarity_BK)
    parts = max(1, min(batch, torch.get_num_threads()))
    bounds = [part * batch // parts for part in range(parts + 1)]

    def build(first: int, end: int) -> bool:
        # Rows are padded: vector loops have no remainder, and an odd number of such steps from row to row keeps a column's
        # numbers out of each other's places in the cache, as steps of 2^k bytes do not.
        matrix = np.full((patches, (-(-patches // _WIDTH) | 1) * _WIDTH), -np.inf)
        return _build(affinity, first, end, linkage == "average", matrix, matrix.view(np.int64), *trees)

    finite = [build(0, batch)] if parts == 1 else list(_threads(parts).map(build, bounds[:-1], bounds[1:]))
    if not all(finite):
        return None
    return tuple(map(torch.from_numpy, trees))  # type: ignore[return-value]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="evomask-trees")


@numba.njit(nogil=True, inline="always")
def _ordered(bits: Any) -> Any:
    """The bits of a float64, none of them NaN, as an integer that is ordered as the floats are."""
    return bits ^ ((bits >> _SIGN_BIT) & _ALL_BUT_SIGN)


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _build(
    affinity_BNN: np.ndarray,
    first: int,
    end: int,
    by_size: bool,
    similarity: np.ndarray,
    bits: np.ndarray,
    parent_BM: np.ndarray,
    level_BM: np.ndarray,
    size_BM: np.ndarray,
    children_BK2: np.ndarray,
    similarity_BK: np.ndarray,
) -> bool:
    """The trees of images `first` to `end`, as `hierarchy.follow_chains` finds them; False where one is not finite.

    `similarity` (N, padded N) is room to work in, and `bits` the same memory. `level_BM` and `size_BM` come filled with ones.
    """
    patches, padded = affinity_BNN.shape[1], similarity.shape[1]
    node = np.empty(patches, np.int64)
    level = np.empty(patches, np.int64)
    size = np.empty(patches, np.int64)
    limit = np.full(padded, _LEAST)  # caps the integers of a row: dead slots and padding are never the largest
    alive = np.empty(patches, np.uint64)  # unsigned: an index that may be negative costs a test at every use
    place = np.empty(patches, np.int64)  # of a slot in `alive`
    chain = np.empty(patches + 1, np.uint64)
    # The merges as they are found: similarity, both nodes, level and size.
    found = np.empty(patches - 1)
    merges = np.empty((patches - 1, 4), np.int64)

    for image in range(first, end):
        not_finite = 0.0
        for i in range(patches):
            for j in range(patches):
                similarity[i, j] = affinity_BNN[image, i, j]
        for i in range(patches):
            for j in range(i):
                mean = (similarity[i, j] + similarity[j, i]) / 2 + 0.0  # no negative zero: it would count as less than zero
                similarity[i, j] = mean
                similarity[j, i] = mean
                not_finite += mean - mean  # NaN, and stays so, once there was infinity or NaN
            not_finite += similarity[i, i] - similarity[i, i]
            similarity[i, i] = -np.inf
            node[i], level[i], size[i], limit[i], alive[i], place[i] = i, 1, 1, _LARGEST, i, i

        if not_finite != 0:
            return False

        length, merge, start = 0, 0, 0
        while merge < patches - 1:
            if length == 0:
                while limit[start] == _LEAST:
                    start += 1
                chain[0] = start
                length = 1
            last = chain[length - 1]
            best = np.int64(_LEAST)
            for j in range(padded):
                best = max(best, min(_ordered(bits[last, j]), limit[j]))

            # The node before wins ties: a chain could run in circles of equal similarities otherwise.
            if length < 2 or _ordered(bits[last, chain[length - 2]]) != best:
                nearest = np.int64(padded)
                for j in range(padded):
                    is_best = min(_ordered(bits[last, j]), limit[j]) == best
                    nearest = min(nearest, np.int64(j) if is_best else np.int64(padded))
                chain[length] = nearest
                length += 1
                continue

            # The union takes the slot of the node before, and the last one's slot dies.
            before = chain[length - 2]
            found[merge] = similarity[last, before]
            union = size[before] + size[last]
            if by_size:
                share = size[before] / union
                for j in range(padded):
                    one, other = similarity[before, j], similarity[last, j]
                    similarity[before, j] = min(share * one + (1 - share) * other, max(one, other))
            else:
                for j in range(padded):
                    similarity[before, j] = (similarity[before, j] + similarity[last, j]) / 2
            similarity[before, before] = -np.inf
            limit[last] = _LEAST
            left = patches - 1 - merge
            moved = alive[left]
            alive[place[last]] = moved
            place[moved] = place[last]
            for k in range(left):
                similarity[alive[k], before] = similarity[before, alive[k]]

            level[before] = max(level[before], level[last]) + 1
            size[before] = union
            merges[merge] = node[before], node[last], level[before], union
            node[before] = patches + merge
            merge += 1
            length -= 2
        _number(merges, found, parent_BM[image], level_BM[image], size_BM[image], children_BK2[image], similarity_BK[image])
    return True


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _number(
    merges: np.ndarray,
    found: np.ndarray,
    parent: np.ndarray,
    level: np.ndarray,
    size: np.ndarray,
    children: np.ndarray,
    similarity: np.ndarray,
) -> None:
    """What `hierarchy.number_by_similarity` does, for one image."""
    patches = len(found) + 1
    order = np.argsort(-found, kind="mergesort")  # a stable one: equal merges stay as found
    number = np.arange(2 * patches - 1)
    for k in range(patches - 1):
        number[patches + order[k]] = patches + k
    for k in range(patches - 1):
        merge = order[k]
        one, other = number[merges[merge, 0]], number[merges[merge, 1]]
        children[k, 0], children[k, 1] = min(one, other), max(one, other)
        parent[one] = parent[other] = patches + k
        level[patches + k], size[patches + k] = merges[merge, 2], merges[merge, 3]
        similarity[k] = found[merge]
    parent[2 * patches - 2] = 2 * patches - 2
