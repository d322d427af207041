"""The trees of hierarchy.py for a GPU, compiled by Triton: a program an image, and the host waits for nothing.

Same algorithm, same arithmetic in the same order and precision, hence the same trees, ties included. Three kernels, as the
reference has three functions: `_symmetrise`, `_follow_chains`, `_number`.

Nearly all the time goes into the second one, and there into latency: close to 3 N steps, each on the row that the step before
has chosen. So a step is a load and two rounds of reductions over 32 bits. Up to 256 patches one warp has the whole row: it
reduces without a barrier and, where the GPU has the instruction, at once. Nothing else is waited for: clusters carry their size
and level with them, the places of the chain that come next are loaded a merge ahead, and nobody asks whether what was written
has arrived. The matrix lies in global memory, that is, mostly in the caches: Triton cannot choose a row of shared memory at run
time.
"""

# Kernels and their launches are written in Triton's language, of which a checker of Python's types knows little.
# pyright: reportCallIssue=false, reportOperatorIssue=false

import torch
import triton
import triton.language as tl
from torch import Tensor

LARGEST = 1024
"""Patches that an image may have."""

_TILE = 32
# A cluster is a number of three fields of 10 bits: its slot, its size less one, its level less one. So of several clusters the
# least is the one in the lowest slot.
_SLOT = tl.constexpr(20)
_SIZE = tl.constexpr(10)
_FIELD = tl.constexpr(1023)
_NOBODY = tl.constexpr(-1)
_ABOVE_ALL = tl.constexpr(2**31 - 1)


def build_trees(affinity_BNN: Tensor, linkage: str) -> tuple[Tensor, ...]:
    """The fields of the `Hierarchy` that `build_hierarchy` makes of a tensor on a GPU, or on a CPU under Triton's interpreter.

    An image whose affinity is not finite gets a tree all the same, and NaN for its similarities.

    Args:
        affinity_BNN: float32 or float64, N from 2 to `LARGEST`.
        linkage: as of `build_hierarchy`.
    """
    batch, patches, _ = affinity_BNN.shape
    block, tiles = triton.next_power_of_2(patches), triton.cdiv(patches, _TILE)
    similarity_BNN = affinity_BNN.new_empty((batch, patches, patches))
    found_BN = similarity_BNN.new_empty((batch, patches))
    ill, chain, kept, dead, rank = affinity_BNN.new_zeros((5, batch, patches), dtype=torch.int32).unbind()
    parent_BM, level_BM, size_BM = affinity_BNN.new_empty((3, batch, 2 * patches - 1), dtype=torch.long).unbind()
    children_BK2 = parent_BM.new_empty((batch, patches - 1, 2))
    similarity_BK = similarity_BNN.new_empty((batch, patches - 1))
    trees = (parent_BM, level_BM, size_BM, children_BK2, similarity_BK)

    # Multiplications and additions stay apart: fused, they round otherwise than the reference.
    options = {"enable_fp_fusion": False}
    with torch.cuda.device_of(affinity_BNN):
        strides = affinity_BNN.stride()
        _symmetrise[(batch * tiles * tiles,)](affinity_BNN, *strides, similarity_BNN, ill, patches, _TILE, **options)
        warps = max(1, block // 256)  # 8 numbers of a row a thread; up to 256 patches one warp, which needs no barrier
        by_size = linkage == "average"
        _follow_chains[(batch,)](similarity_BNN, chain, kept, dead, patches, block, by_size, num_warps=warps, **options)
        chunk = min(block, 4096 // block)
        _number[(batch,)](
            similarity_BNN, kept, dead, ill, found_BN, rank, *trees, patches, block, chunk, num_warps=8, **options
        )
    return trees


@triton.jit
def _symmetrise(affinity, stride_b, stride_i, stride_j, similarity, ill, patches: tl.constexpr, TILE: tl.constexpr):
    """A tile of (A + A^T) / 2 with a diagonal of -inf. What is not finite becomes 0 and is noted in `ill`."""
    # All tiles of an image together: one meets the entries of its mirror image in the cache.
    tiles = tl.cdiv(patches, TILE)
    program = tl.program_id(0).to(tl.int64)
    image = program // (tiles * tiles)
    i = program // tiles % tiles * TILE + tl.arange(0, TILE)[:, None]
    j = program % tiles * TILE + tl.arange(0, TILE)[None, :]
    inside = (i < patches) & (j < patches)
    affinity += image * stride_b
    here = tl.load(affinity + i * stride_i + j * stride_j, mask=inside, other=0)
    there = tl.load(affinity + j * stride_i + i * stride_j, mask=inside, other=0)
    mean = (here + there) * 0.5 + 0.0  # no negative zero: its bits count as less than zero
    finite = tl.abs(mean) < float("inf")
    mean = tl.where(i == j, float("-inf"), tl.where(finite, mean, 0.0))
    tl.store(similarity + (image * patches + i) * patches + j, mean, mask=inside)
    tl.store(ill + image * patches + i * 0 + j * 0, 1, mask=inside & ~finite)


# Were it known that rows are aligned, they would be read two numbers at a time, columns one, and shuffled between the two.
@triton.jit(do_not_specialize_on_alignment=["similarity"])
def _follow_chains(similarity, chain, kept, dead, patches: tl.constexpr, BLOCK: tl.constexpr, BY_SIZE: tl.constexpr):
    """The merges of an image as `hierarchy.follow_chains` finds them: both clusters, whose union takes the first one's slot."""
    image = tl.program_id(0).to(tl.int64)
    similarity += image * patches * patches
    chain += image * patches
    kept += image * patches
    dead += image * patches

    slot = tl.arange(0, BLOCK)
    cluster = slot << _SLOT
    alive = slot < patches
    merge = tl.full((), 0, tl.int32)
    step = merge
    length = merge + 1
    last, before = merge, merge + _NOBODY
    third, fourth = before, before  # the ones before it
    tl.store(chain, last)
    row = tl.load(similarity + slot, mask=alive, other=float("-inf"))
    row_before = row

    while (merge < patches - 1) & (step < 3 * patches):  # fewer than 3 N do; but nothing must make a GPU hang
        step += 1
        upper = _upper_bits(row)
        best = upper == tl.max(upper)
        nearest = tl.min(tl.where(best, cluster, _ABOVE_ALL))
        if nearest != tl.max(tl.where(best, cluster, -1)):
            # Now all bits count. The one before wins ties: a chain could run in circles of equal similarities otherwise.
            ahead = tl.where(slot == before >> _SLOT, -1, cluster)
            nearest = tl.min(tl.where(row == tl.max(row), ahead, _ABOVE_ALL))
            nearest = tl.where(nearest < 0, before, nearest)

        if nearest != before:
            fourth = third
            third = before
            before = last
            row_before = row
            last = nearest
            row = tl.load(similarity + (last >> _SLOT) * patches + slot, mask=alive, other=float("-inf"))
            tl.store(chain + length, last)
            length += 1
        else:
            # The union takes the slot of the cluster before, and the last one's slot dies.
            tl.store(kept + merge, before)
            tl.store(dead + merge, last)
            size_before = ((before >> _SIZE) & _FIELD) + 1
            size_last = ((last >> _SIZE) & _FIELD) + 1
            if BY_SIZE:
                share = _divided(size_before.to(row.dtype), (size_before + size_last).to(row.dtype))
                mean = tl.minimum(share * row_before + (1 - share) * row, tl.maximum(row_before, row))
            else:
                mean = (row_before + row) * 0.5
            home = before >> _SLOT
            alive = alive & (slot != last >> _SLOT)
            tl.store(similarity + home * patches + slot, mean, mask=alive)
            tl.store(similarity + slot * patches + home, mean, mask=alive)
            level = tl.maximum(before & _FIELD, last & _FIELD) + 1
            union = (home << _SLOT) | ((size_before + size_last - 1) << _SIZE) | level
            cluster = tl.where(slot == home, union, cluster)
            merge += 1

            last = third
            before = fourth
            length -= 2
            if length == 0:
                last = tl.min(tl.where(alive, cluster, _ABOVE_ALL))
                tl.store(chain, last)
                length += 1
            tl.debug_barrier()  # each thread is to see what the others have written
            row = tl.load(similarity + (last >> _SLOT) * patches + slot, mask=alive, other=float("-inf"))
            home = tl.maximum(before >> _SLOT, 0)  # where there is none before, any row will do
            row_before = tl.load(similarity + home * patches + slot, mask=alive, other=float("-inf"))
            third = tl.load(chain + length - 3, mask=length > 2, other=_NOBODY)
            fourth = tl.load(chain + length - 4, mask=length > 3, other=_NOBODY)


@triton.jit
def _divided(one, other):
    """The quotient as IEEE rounds it; of float32, `/` is an approximation on a GPU."""
    return tl.div_rn(one, other) if one.dtype == tl.float32 else one / other


@triton.jit
def _upper_bits(row):
    """The upper 32 bits of numbers other than NaN and negative zero, as integers that are ordered as the numbers are."""
    upper = (row.to(tl.int64, bitcast=True) >> 32).to(tl.int32) if row.dtype == tl.float64 else row.to(tl.int32, bitcast=True)
    return upper ^ ((upper >> 31) & 0x7FFFFFFF)


@triton.jit
def _number(
    similarity,
    kept,
    dead,
    ill,
    found,
    rank,
    parent,
    level,
    size,
    children,
    similarities,
    patches: tl.constexpr,
    BLOCK: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """What `hierarchy.number_by_similarity` does, for an image: a merge ranks behind the more similar and the earlier ones."""
    image = tl.program_id(0).to(tl.int64)
    merges = patches - 1
    similarity += image * patches * patches
    kept += image * patches
    dead += image * patches
    rank += image * patches
    found += image * patches
    parent += image * (patches + merges)
    level += image * (patches + merges)
    size += image * (patches + merges)
    children += image * merges * 2
    similarities += image * merges

    merge = tl.arange(0, BLOCK)
    is_merge = merge < merges
    one = tl.load(kept + merge, mask=is_merge, other=0)
    other = tl.load(dead + merge, mask=is_merge, other=0)
    # What is in the row of a dead slot stays there.
    own = tl.load(similarity + (other >> _SLOT) * patches + (one >> _SLOT), mask=is_merge, other=0)
    tl.store(found + merge, own, mask=is_merge)
    tl.debug_barrier()

    # The merges that each one ranks behind, and, counted from 1, those that made its two clusters; 0: they are patches.
    place = tl.zeros([CHUNK, BLOCK], tl.int32)
    one_made = tl.zeros([CHUNK, BLOCK], tl.int32)
    other_made = tl.zeros([CHUNK, BLOCK], tl.int32)
    for first in range(0, patches - 1, CHUNK):
        rival = first + tl.arange(0, CHUNK)[:, None]
        theirs = tl.load(found + rival, mask=rival < merges, other=float("-inf"))
        home = tl.load(kept + rival, mask=rival < merges, other=0) >> _SLOT
        earlier = rival < merge[None, :]
        place += ((theirs > own[None, :]) | ((theirs == own[None, :]) & earlier)).to(tl.int32)
        made = tl.where(earlier, rival + 1, 0)
        one_made = tl.where(home == (one >> _SLOT)[None, :], tl.maximum(one_made, made), one_made)
        other_made = tl.where(home == (other >> _SLOT)[None, :], tl.maximum(other_made, made), other_made)
    place = tl.sum(place, axis=0)
    one_made = tl.max(one_made, axis=0)
    other_made = tl.max(other_made, axis=0)
    tl.store(rank + merge, place, mask=is_merge)
    tl.debug_barrier()

    one_rank = tl.load(rank + one_made - 1, mask=one_made > 0, other=0)
    other_rank = tl.load(rank + other_made - 1, mask=other_made > 0, other=0)
    one_node = tl.where(one_made > 0, patches + one_rank, one >> _SLOT)
    other_node = tl.where(other_made > 0, patches + other_rank, other >> _SLOT)
    tl.store(children + place * 2, tl.minimum(one_node, other_node), mask=is_merge)
    tl.store(children + place * 2 + 1, tl.maximum(one_node, other_node), mask=is_merge)
    tl.store(parent + one_node, patches + place, mask=is_merge)
    tl.store(parent + other_node, patches + place, mask=is_merge)
    tl.store(parent + patches + merges - 1, patches + merges - 1)
    is_patch = merge < patches
    tl.store(level + merge, 1, mask=is_patch)
    tl.store(size + merge, 1, mask=is_patch)
    tl.store(level + patches + place, tl.maximum(one & _FIELD, other & _FIELD) + 2, mask=is_merge)
    sizes = ((one >> _SIZE) & _FIELD) + ((other >> _SIZE) & _FIELD) + 2
    tl.store(size + patches + place, sizes, mask=is_merge)
    is_ill = tl.load(ill + image * patches) != 0
    tl.store(similarities + place, tl.where(is_ill, float("nan"), own), mask=is_merge)
