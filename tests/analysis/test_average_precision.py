"""The revisited protocol against rankings made by hand, and against one that walks down whole lists."""

import numpy as np
import pytest

from evomask.analysis.average_precision import RankedQuery, average_precision, mean_metrics, precision_at


def ranks(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ranks(0), 1.0),
        (ranks(0, 1, 2), 1.0),
        (ranks(1), (0 + 1 / 2) / 2),
        (ranks(0, 2), ((1 + 1) / 2 + (1 / 2 + 2 / 3) / 2) / 2),
        (ranks(3, 4), ((0 / 3 + 1 / 4) / 2 + (1 / 4 + 2 / 5) / 2) / 2),
    ],
)
def test_average_precision_by_hand(found: np.ndarray, expected: float) -> None:
    assert average_precision(found) == pytest.approx(expected)


def test_precision_of_the_first_few_by_hand() -> None:
    assert precision_at(ranks(0, 2), 1) == 1
    assert precision_at(ranks(1, 2), 1) == 0
    assert precision_at(ranks(0, 2, 20), 5) == 2 / 5
    assert precision_at(ranks(0, 2), 5) == 2 / 3, "all that is right has come by the third place"


def test_junk_is_passed_over_by_hand() -> None:
    # junk, junk, wrong, right, junk, right
    query = RankedQuery(ranks(5, 3), ranks(0, 4, 1))
    assert query.ranks().tolist() == [1, 2]


def test_queries_without_anything_right_are_left_out() -> None:
    found = mean_metrics([RankedQuery(ranks(0), ranks()), RankedQuery(ranks(), ranks(0)), RankedQuery(ranks(1), ranks())])
    assert found == pytest.approx({"map": 62.5, "mp1": 50, "mp5": 75, "mp10": 75, "queries": 2})
    with pytest.raises(ValueError, match="nothing to measure"):
        mean_metrics([RankedQuery(ranks(), ranks(0))])


def walk(order: list[int], positives: set[int], junk: set[int]) -> dict[str, float]:
    """One query, image by image: precision is noted before and after each right one, and the area between is added."""
    recall_step, area = 1 / len(positives), 0.0
    seen = right = 0
    verdicts = []
    for image in order:
        if image in junk:
            continue
        before = right / seen if seen else 1.0
        seen += 1
        verdicts.append(image in positives)
        if image in positives:
            right += 1
            area += recall_step * (before + right / seen) / 2
    last = max(place for place, is_right in enumerate(verdicts) if is_right) + 1
    found = {"map": 100 * area}
    for cut in (1, 5, 10):
        first = verdicts[: min(cut, last)]
        found[f"mp{cut}"] = 100 * sum(first) / len(first)
    return found


def test_it_equals_a_walk_down_whole_rankings() -> None:
    generator = np.random.default_rng(0)
    queries, walked = [], []
    for _ in range(200):
        size = int(generator.integers(5, 60))
        order = generator.permutation(size)
        positives, junk = np.split(generator.permutation(size), [int(generator.integers(1, 5))])
        junk = junk[: int(generator.integers(0, len(junk) + 1))]
        place = np.argsort(order)
        queries.append(RankedQuery(place[positives], place[junk]))
        walked.append(walk(order.tolist(), set(positives.tolist()), set(junk.tolist())))
    found = mean_metrics(queries)
    for name in ("map", "mp1", "mp5", "mp10"):
        assert found[name] == pytest.approx(np.mean([each[name] for each in walked]))
    for query, expected in zip(queries, walked, strict=True):
        assert mean_metrics([query])["map"] == pytest.approx(expected["map"])
