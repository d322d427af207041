"""Attention maps -> patch affinity (Eq. 6).

The hierarchy merges unordered pairs, attention is a relation of ordered ones: a pair's similarity is the mean of both
directions, `symmetric_attention`, which `build_hierarchy` takes itself. What it is the mean of is chosen here: each function
of `AFFINITIES` turns the mean attention between patches, `attention_BNN` (row: query, column: key), into `affinity_BNN`. One
that gives a symmetric affinity has chosen something else than the mean, which then changes nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize


def symmetric_attention(attention_BNN: Tensor) -> Tensor:
    """The attention of a pair, S = (A + A^T) / 2 (Eq. 6). A symmetric input comes back as it is."""
    return (attention_BNN + attention_BNN.mT) / 2


def attention_itself(attention_BNN: Tensor) -> Tensor:
    """The paper's affinity: A."""
    return attention_BNN


def popularity_corrected_attention(attention_BNN: Tensor) -> Tensor:
    """Attention beyond what a key receives on average, float64. Not in the paper.

    In a young network a large part of the variance of A is one effect of the key alone: some patches are popular with all
    queries, and greedy merging then chains everything to them. Subtracting the column mean removes just that effect.
    """
    attention_BNN = attention_BNN.double()
    return attention_BNN - attention_BNN.mean(dim=-2, keepdim=True)


def attention_profile_similarity(attention_BNN: Tensor) -> Tensor:
    """Cosine, in [-1, 1], of the rows of A after the mean row is taken off: patches that look at the same places are alike.

    Not in the paper. It relates patches through what they attend to, not through whether they attend to each other. It is
    float64, as autocast would make a product of float32 matrices coarse.
    """
    profile_BNN = normalize(popularity_corrected_attention(attention_BNN), dim=-1)
    return profile_BNN @ profile_BNN.mT


def mutual_attention(attention_BNN: Tensor) -> Tensor:
    """The lesser of both directions: both patches have to attend to each other. Not in the paper."""
    return torch.minimum(attention_BNN, attention_BNN.mT)


def either_attention(attention_BNN: Tensor) -> Tensor:
    """The greater of both directions: that one of the two attends to the other is enough. Not in the paper."""
    return torch.maximum(attention_BNN, attention_BNN.mT)


AFFINITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "attention": attention_itself,
    "popularity": popularity_corrected_attention,
    "profile": attention_profile_similarity,
    "mutual": mutual_attention,
    "either": either_attention,
}
"""The values of `EvolvedMasking(affinity=...)`. A further affinity is a function above and a line here."""
