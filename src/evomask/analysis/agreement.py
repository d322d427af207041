"""How alike two trees of the same patches are: the adjusted Rand index of their cuts."""

from evomask.masking import Hierarchy, masking_depth


def mean_adjusted_rand_index(one: Hierarchy, other: Hierarchy, progress: float) -> float:
    """Agreement of the partitions that a mask at `progress` is made of, mean over images.

    Both trees are cut at the depth of Eq. 14, each for its own height.

    Args:
        one: trees.
        other: other trees of the same images.
        progress: the share of training that is over, t / T in [0, 1).

    Returns:
        1 where all partitions are equal, 0 where they agree as chance would have it, less where they agree less.

    Raises:
        ValueError: scikit-learn is not installed.
    """
    try:
        from sklearn.metrics import adjusted_rand_score
    except ImportError as error:
        raise ValueError("partitions are compared with scikit-learn: pip install 'evomask[bench]'") from error
    cuts = (tree.cut(masking_depth(tree.height, progress)).cpu().numpy() for tree in (one, other))
    scores = [adjusted_rand_score(mine, theirs) for mine, theirs in zip(*cuts, strict=True)]
    return sum(scores) / len(scores)
