"""Attention maps -> patch affinity (Eq. 6).

The hierarchy merges unordered pairs, attention is a relation of ordered ones: each function here turns the mean attention
between patches, `attention_BNN` (row: query, column: key), into a symmetric similarity, `affinity_BNN`.
"""

from collections.abc import Callable

from torch import Tensor
from torch.nn.functional import normalize


def symmetric_attention(attention_BNN: Tensor) -> Tensor:
    """The paper's affinity: the attention of a pair, S = (A + A^T) / 2 (Eq. 6). A symmetric input comes back as it is."""
    return (attention_BNN + attention_BNN.mT) / 2


def popularity_corrected_attention(attention_BNN: Tensor) -> Tensor:
    """Attention beyond what a key receives on average, then symmetric. Not in the paper.

    In a young network a large part of the variance of A is one effect of the key alone: some patches are popular with all
    queries, and greedy merging then chains everything to them. Subtracting the column mean removes just that effect.
    """
    return symmetric_attention(attention_BNN - attention_BNN.mean(dim=-2, keepdim=True))


def attention_profile_similarity(attention_BNN: Tensor) -> Tensor:
    """Cosine, in [-1, 1], of the rows of A after the mean row is taken off: patches that look at the same places are alike.

    Not in the paper. It relates patches through what they attend to, not through whether they attend to each other.
    """
    profile_BNN = normalize(attention_BNN - attention_BNN.mean(dim=-2, keepdim=True), dim=-1)
    return profile_BNN @ profile_BNN.mT


AFFINITIES: dict[str, Callable[[Tensor], Tensor]] = {
    "attention": symmetric_attention,
    "popularity": popularity_corrected_attention,
    "profile": attention_profile_similarity,
}
"""The values of `EvolvedMasking(affinity=...)`. A further affinity is a function above and a line here."""
