"""Search in blocks finds what sorting the whole matrix of similarities finds."""

import sys

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from evomask.analysis import search
from evomask.analysis.search import Held, nearest, ranks


@pytest.fixture(params=["all different", "many equal"])
def descriptors(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    if request.param == "all different":
        return tuple(normalize(torch.randn(count, 8, generator=generator), dim=1) for count in (7, 95))  # type: ignore[return-value]
    return tuple(torch.randint(0, 2, (count, 8), generator=generator).float() for count in (7, 95))  # type: ignore[return-value]


def full_ranking(queries: Tensor, database: Tensor) -> Tensor:
    """(Q, N), nearest first; of equals the first in the database is first."""
    return (queries @ database.T).sort(dim=1, descending=True, stable=True).indices


@pytest.mark.parametrize("block", [1, 10, 95, 1000])
def test_ranks_are_places_in_the_full_ranking(
    descriptors: tuple[Tensor, Tensor], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "QUERIES_AT_A_TIME", 3)
    queries, database = descriptors
    places = full_ranking(queries, database).argsort(dim=1).numpy()
    generator = np.random.default_rng(1)
    wanted = [generator.permutation(95)[:count] for count in (0, 1, 5, 95, 3, 20, 2)]
    found = ranks(Held(queries), Held(database), wanted, block=block)
    for row, numbers, of_query in zip(places, wanted, found, strict=True):
        assert of_query.tolist() == row[numbers].tolist()


@pytest.mark.parametrize("block", [4, 95])
def test_the_nearest_are_the_first_of_the_full_ranking(
    descriptors: tuple[Tensor, Tensor], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "QUERIES_AT_A_TIME", 3)
    queries, database = descriptors
    similarity = queries @ database.T
    numbers, scores = nearest(Held(queries), Held(database), 10, block=block)
    torch.testing.assert_close(scores, similarity.sort(dim=1, descending=True).values[:, :10])
    torch.testing.assert_close(scores, similarity.gather(1, numbers))
    assert all(len(set(row)) == 10 for row in numbers.tolist())
    numbers, _ = nearest(Held(queries), Held(database), 500)
    assert numbers.shape == (7, 95), "there are no more"


def test_faiss_finds_the_same(descriptors: tuple[Tensor, Tensor]) -> None:
    pytest.importorskip("faiss")
    queries, database = (Held(each) for each in descriptors)
    _, scores = nearest(queries, database, 10, block=20)
    numbers, faiss_scores = nearest(queries, database, 10, block=20, faiss=True)
    torch.testing.assert_close(faiss_scores, scores)
    torch.testing.assert_close((descriptors[0] @ descriptors[1].T).gather(1, numbers), scores)


def test_a_faiss_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match="pip install faiss-cpu"):
        nearest(Held(torch.eye(2)), Held(torch.eye(2)), 1, faiss=True)


def test_never_more_than_a_block_is_asked_for(descriptors: tuple[Tensor, Tensor]) -> None:
    asked: list[int] = []

    class Watched(Held):
        def rows(self, first: int, end: int) -> Tensor:
            asked.append(end - first)
            return super().rows(first, end)

    queries, database = descriptors
    ranks(Held(queries), Watched(database), [np.arange(3)] * 7, block=10)
    assert asked == [10] * 20, "twice through the database"
    asked.clear()
    nearest(Held(queries), Watched(database), 3, block=10)
    assert asked == [10] * 10
