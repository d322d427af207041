"""The trees of hierarchy.py for a CPU, compiled by numba: an image a thread, a matrix a thread, no temporary of a batch.

Same algorithm, same arithmetic in the same order and precision, hence the same trees, ties included. What differs is how the
largest entry of a row is found: compilers vectorise a search among integers, not among floats, so the bits of a similarity are
read as an integer that is ordered as the similarity is. Such integers have to keep the width of the similarities: numba's
operators widen them to 64 bits, numpy's functions do not.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

_WIDTH = 16  # numbers that the vector loops take at a time
_CACHE_LINE = 64  # bytes


def build_trees(affinity_BNN: Tensor, linkage: str) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor] | None:
    """The fields of the `Hierarchy` that `build_hierarchy` makes of a float32 or float64 tensor; None if it is not finite."""
    batch, patches, _ = affinity_BNN.shape
    affinity = affinity_BNN.contiguous().numpy()
    parent_BM, level_BM, size_BM = (np.empty((batch, 2 * patches - 1), dtype=np.int64) for _ in range(3))
    children_BK2 = np.empty((batch, patches - 1, 2), dtype=np.int64)
    similarity_BK = np.empty((batch, patches - 1), affinity.dtype)
    trees = (parent_BM, level_BM, size_BM, children_BK2, similarity_BK)
    parts = max(1, min(batch, torch.get_num_threads()))
    bounds = [part * batch // parts for part in range(parts + 1)]
    integer = np.dtype(f"i{affinity.itemsize}")
    extremes = np.array([np.iinfo(integer).min, np.iinfo(integer).max], integer)

    def build(first: int, end: int) -> bool:
        # Rows are padded: vector loops have no remainder, and an odd number of such steps from row to row keeps a column's
        # numbers out of each other's places in the cache, as steps of 2^k bytes do not.
        matrix = np.full((patches, (-(-patches // _WIDTH) | 1) * _WIDTH), -np.inf, affinity.dtype)
        return _build(affinity, first, end, linkage == "average", matrix, matrix.view(integer), extremes, *trees)

    finite = [build(0, batch)] if parts == 1 else list(_threads(parts).map(build, bounds[:-1], bounds[1:]))
    if not all(finite):
        return None
    return tuple(map(torch.from_numpy, trees))  # type: ignore[return-value]


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="evomask-trees")


def _compiled(function: Callable[..., Any]) -> Any:
    """By numba, and kept on disk for the next process, where there is a place that it can write to."""
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # as in a container without a home: a few seconds in every process
        return numba.njit(**options)(function)


@numba.njit(nogil=True, inline="always")
def _ordered(bits: Any, largest: Any) -> Any:
    """The bits of a float other than NaN as an integer that is ordered as the floats are; `largest`: all but its sign bit."""
    return np.bitwise_xor(bits, largest) if bits < 0 else bits


@intrinsic
def _prefetch(_typing: Any, address: Any) -> Any:
    """Ask for the cache line at an address, and do not wait for it. Compiled functions give the address alone."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        instruction = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        to_read, to_second_level, data = number(0), number(2), number(1)
        builder.call(instruction, [builder.inttoptr(arguments[0], pointer), to_read, to_second_level, data])
        return context.get_dummy_value()

    return numba.void(numba.intp), generate


@_compiled
def _build(
    affinity_BNN: np.ndarray,
    first: int,
    end: int,
    by_size: bool,
    similarity: np.ndarray,
    bits: np.ndarray,
    extremes: np.ndarray,
    parent_BM: np.ndarray,
    level_BM: np.ndarray,
    size_BM: np.ndarray,
    children_BK2: np.ndarray,
    similarity_BK: np.ndarray,
) -> bool:
    """The trees of images `first` to `end`, as `hierarchy.follow_chains` finds them; False where one is not finite.

    `similarity` (N, padded N) is room to work in, and `bits` the same memory as integers, of which `extremes` are the least and
    the largest.
    """
    patches, padded = affinity_BNN.shape[1], similarity.shape[1]
    number, integer = similarity.dtype.type, bits.dtype.type
    half, zero = number(0.5), number(0)
    least, largest = extremes
    node = np.empty(patches, np.int64)
    level = np.empty(patches, np.int64)
    size = np.empty(patches, np.int64)
    limit = np.full(padded, least)  # caps the integers of a row: dead slots and padding are never the largest
    alive = np.empty(patches, np.uint64)  # unsigned: an index that may be negative costs a test at every use
    place = np.empty(patches, np.int64)  # of a slot in `alive`
    chain = np.empty(patches + 1, np.uint64)
    # The merges as they are found: similarity, both nodes, level and size.
    found = np.empty(patches - 1, similarity.dtype)
    merges = np.empty((patches - 1, 4), np.int64)
    bytes_a_merge = affinity_BNN.itemsize * patches * patches // (patches - 1)

    similarity[0, 0] = np.inf
    infinite = bits[0, 0]  # greater than the bits of whatever is finite, less than those of NaN, but for the sign
    for image in range(first, end):
        largest_magnitude = integer(0)
        for i in range(patches):
            for j in range(patches):
                similarity[i, j] = affinity_BNN[image, i, j]
            for j in range(i):
                mean = (similarity[i, j] + similarity[j, i]) * half + zero  # no negative zero: it would count as less than zero
                similarity[i, j] = mean
                similarity[j, i] = mean
            for j in range(i + 1):
                magnitude = np.bitwise_and(bits[i, j], largest)
                largest_magnitude = magnitude if magnitude > largest_magnitude else largest_magnitude
            similarity[i, i] = -np.inf
            node[i], level[i], size[i], limit[i], alive[i], place[i] = i, 1, 1, largest, i, i

        if largest_magnitude >= infinite:
            return False

        length, merge, start = 0, 0, 0
        following = affinity_BNN[min(image + 1, end - 1)].ctypes.data
        while merge < patches - 1:
            if length == 0:
                while limit[start] == least:
                    start += 1
                chain[0] = start
                length = 1
            last = chain[length - 1]
            best = least
            for j in range(padded):
                value = np.minimum(_ordered(bits[last, j], largest), limit[j])
                best = value if value > best else best

            # The node before wins ties: a chain could run in circles of equal similarities otherwise.
            if length < 2 or _ordered(bits[last, chain[length - 2]], largest) != best:
                nearest = integer(padded)
                for j in range(padded):
                    value = np.minimum(_ordered(bits[last, j], largest), limit[j])
                    candidate = integer(j) if value == best else integer(padded)
                    nearest = candidate if candidate < nearest else nearest
                chain[length] = nearest
                length += 1
                continue

            # The union takes the slot of the node before, and the last one's slot dies.
            before = chain[length - 2]
            found[merge] = similarity[last, before]
            union = size[before] + size[last]
            if by_size:
                share = number(size[before]) / number(union)
                rest = number(1) - share
                for j in range(padded):
                    one, other = similarity[before, j], similarity[last, j]
                    similarity[before, j] = min(share * one + rest * other, max(one, other))
            else:
                for j in range(padded):
                    similarity[before, j] = (similarity[before, j] + similarity[last, j]) * half
            similarity[before, before] = -np.inf
            limit[last] = least
            left = patches - 1 - merge
            moved = alive[left]
            alive[place[last]] = moved
            place[moved] = place[last]
            for k in range(left):
                similarity[alive[k], before] = similarity[before, alive[k]]
            for k in range(0, bytes_a_merge + _CACHE_LINE, _CACHE_LINE):  # a share of the next image, which is far away as yet
                _prefetch(following + merge * bytes_a_merge + k)  # pyright: ignore[reportCallIssue]

            level[before] = max(level[before], level[last]) + 1
            size[before] = union
            merges[merge] = node[before], node[last], level[before], union
            node[before] = patches + merge
            merge += 1
            length -= 2
        _number(merges, found, parent_BM[image], level_BM[image], size_BM[image], children_BK2[image], similarity_BK[image])
    return True


@_compiled
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
    # A merge ranks behind the more similar and the earlier ones. Counting those is faster than sorting: no branch is guessed.
    rank = np.empty(patches - 1, np.int32)
    for merge in range(patches - 1):
        overtaken = np.int32(0)
        for earlier in range(merge):
            is_less = np.int32(found[earlier] < found[merge])
            rank[earlier] = np.int32(rank[earlier] + is_less)
            overtaken = np.int32(overtaken + is_less)
        rank[merge] = np.int32(merge - overtaken)
    number = np.arange(2 * patches - 1)
    for merge in range(patches - 1):
        number[patches + merge] = patches + rank[merge]
    for merge in range(patches - 1):
        k = rank[merge]
        one, other = number[merges[merge, 0]], number[merges[merge, 1]]
        children[k, 0], children[k, 1] = min(one, other), max(one, other)
        parent[one] = parent[other] = patches + k
        level[patches + k], size[patches + k] = merges[merge, 2], merges[merge, 3]
        similarity[k] = found[merge]
    parent[2 * patches - 2] = 2 * patches - 2
    level[:patches] = 1
    size[:patches] = 1
