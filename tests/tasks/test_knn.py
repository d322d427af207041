"""kNN against a naive loop, scikit-learn and cases worked by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from evomask.tasks.features import extract_features
from evomask.tasks.knn import KnnConfig, class_votes, evaluate_knn, leave_one_out_accuracy

TEMPERATURE = 0.07


def random_features(count: int, seed: int) -> Tensor:
    return torch.randn(count, 12, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def labelled() -> tuple[Tensor, Tensor, Tensor]:
    """Training features, their labels (4 classes), and features to classify."""
    labels = torch.randint(0, 4, (90,), generator=torch.Generator().manual_seed(2))
    train = random_features(90, 0) + torch.nn.functional.one_hot(labels, 12)
    return train, labels, random_features(25, 1)


def naive_votes(train: list[list[float]], labels: list[int], query: list[float], classes: int, k: int) -> list[float]:
    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    nearest = sorted(range(len(train)), key=lambda i: -cosine(query, train[i]))[:k]
    votes = [0.0] * classes
    for i in nearest:
        votes[labels[i]] += math.exp(cosine(query, train[i]) / TEMPERATURE)
    return votes


@pytest.mark.parametrize("k", [1, 7, 20, 90])
def test_votes_equal_a_naive_loop(labelled: tuple[Tensor, Tensor, Tensor], k: int) -> None:
    train, labels, queries = labelled
    votes = class_votes(train, labels, queries, 4, k, TEMPERATURE)
    expected = [naive_votes(train.tolist(), labels.tolist(), query, 4, k) for query in queries.tolist()]
    expected = [[vote / sum(votes_of_one) for vote in votes_of_one] for votes_of_one in expected]
    torch.testing.assert_close(votes, torch.tensor(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_predictions_equal_scikit_learn(labelled: tuple[Tensor, Tensor, Tensor], k: int) -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    train, labels, queries = labelled
    oracle = neighbors.KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / TEMPERATURE)
    ).fit(train.numpy(), labels.numpy())
    votes = class_votes(train, labels, queries, 4, k, TEMPERATURE)
    assert votes.argmax(dim=1).tolist() == oracle.predict(queries.numpy()).tolist()
    np.testing.assert_allclose(votes.numpy(), oracle.predict_proba(queries.numpy()), atol=1e-4)


def test_length_does_not_count_but_direction_does() -> None:
    train = torch.tensor([[1.0, 0.0], [0.0, 0.01]])
    votes = class_votes(train, torch.tensor([0, 1]), torch.tensor([[1.0, 2.0], [200.0, 100.0]]), 2, 1, TEMPERATURE)
    assert votes.argmax(dim=1).tolist() == [1, 0]
    assert (votes == 0).sum() == 2, "with one neighbour there is one vote"


def test_a_low_temperature_leaves_the_nearest_alone_with_its_vote(labelled: tuple[Tensor, Tensor, Tensor]) -> None:
    train, labels, queries = labelled
    votes = class_votes(train, labels, queries, int(labels.max()) + 1, 20, 1e-4)
    assert torch.equal(votes.argmax(dim=1), class_votes(train, labels, queries, int(labels.max()) + 1, 1, 1.0).argmax(dim=1))


@pytest.mark.parametrize("wrong", [{"k": 0}, {"temperature": 0.0}])
def test_neighbours_and_temperature_are_above_zero(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"--{next(iter(wrong))} must be"):
        KnnConfig(**wrong)


def test_fewer_images_than_neighbours_all_vote() -> None:
    votes = class_votes(torch.eye(3), torch.tensor([0, 1, 1]), torch.tensor([[1.0, 0.0, 0.0]]), 2, 20, 1.0)
    assert votes[0].tolist() == pytest.approx([math.e / (math.e + 2), 2 / (math.e + 2)])


def test_many_queries_are_split_and_stay_in_order() -> None:
    queries = random_features(1030, 3)
    train, labels = random_features(10, 4), torch.arange(10) % 3
    votes = class_votes(train, labels, queries, 3, 4, TEMPERATURE)
    one_by_one = torch.cat([class_votes(train, labels, query[None], 3, 4, TEMPERATURE) for query in queries[1020:]])
    torch.testing.assert_close(votes[1020:], one_by_one)


class ColourEncoder:
    """Features are the mean of each channel, before the normalisation that it names."""

    def __init__(self) -> None:
        self.image_size, self.in_chans = (8, 8), 3
        self.mean, self.std = (0.5, 0.25, 0.0), (2.0, 1.0, 0.5)
        self.model = nn.Identity()
        self.name = "colours"
        self.asked_for: set[str] = set()

    def features(self, images: Tensor, pooling: str) -> Tensor:
        self.asked_for.add(pooling)
        return images.mean(dim=(2, 3)) * torch.tensor(self.std) + torch.tensor(self.mean)


def write_images(root: Path, colours: dict[str, list[tuple[int, int, int]]]) -> Path:
    for name, values in colours.items():
        (root / name).mkdir(parents=True)
        for number, colour in enumerate(values):
            Image.new("RGB", (10, 12), colour).save(root / name / f"{number}.png")
    return root


RED, GREEN, BLUE, YELLOW, WHITE = (250, 5, 5), (5, 250, 5), (5, 5, 250), (200, 200, 0), (250, 250, 250)


@pytest.fixture
def folders(tmp_path: Path) -> KnnConfig:
    """Classes named after colours: in the training set red is the commonest."""
    train = write_images(
        tmp_path / "train",
        {"blue": [BLUE], "green": [GREEN], "red": [RED, RED, RED], "white": [WHITE], "x": [(9, 0, 9)], "yellow": [YELLOW]},
    )
    val = write_images(
        tmp_path / "val",
        {
            "blue": [BLUE, (50, 0, 200)],
            "green": [GREEN],
            "red": [(180, 60, 0)],
            "white": [(200, 200, 190)],
            "x": [(0, 9, 9)],
            "yellow": [(220, 180, 0), BLUE],  # the second is blue, under a wrong name
        },
    )
    return KnnConfig(train=train, val=val, k=1, workers=0, batch_size=3, device="cpu")


def test_features_are_those_of_the_normalised_images_in_order(folders: KnnConfig) -> None:
    encoder = ColourEncoder()
    source, _ = folders.sources(encoder)  # type: ignore[arg-type]
    settings = {"device": torch.device("cpu"), "workers": 0, "batch_size": 3}
    features, labels = extract_features(encoder, source, "images", **settings)  # type: ignore[arg-type]
    expected = torch.tensor([BLUE, GREEN, RED, RED, RED, WHITE, (9, 0, 9), YELLOW]) / 255
    torch.testing.assert_close(features, expected)
    assert labels.tolist() == [0, 1, 2, 2, 2, 3, 4, 5]


def test_accuracy_of_a_case_made_by_hand(folders: KnnConfig) -> None:
    metrics = evaluate_knn(ColourEncoder(), folders)  # type: ignore[arg-type]
    # Right: both blue, green, red, white, yellow. Wrong: blue named yellow, and (0, 9, 9), which is nearest to white, not to x.
    assert metrics["top1"] == pytest.approx(100 * 6 / 8)
    assert metrics["majority"] == pytest.approx(100 * 1 / 8), "always red, the commonest class of the training images"
    assert set(metrics) == {"top1", "top5", "majority"}


def test_the_class_token_is_compared_where_it_is_asked_for(folders: KnnConfig) -> None:
    encoder = ColourEncoder()
    evaluate_knn(encoder, folders)  # type: ignore[arg-type]
    assert encoder.asked_for == {"mean"}
    evaluate_knn(encoder, replace(folders, pooling="token"))  # type: ignore[arg-type]
    assert encoder.asked_for == {"mean", "token"}


def test_top5_counts_the_first_five_classes(folders: KnnConfig) -> None:
    # All eight images vote. Of six classes the one that an image is least like comes last: for the blue one, yellow.
    metrics = evaluate_knn(ColourEncoder(), replace(folders, k=8, temperature=0.5))  # type: ignore[arg-type]
    assert metrics["top5"] == pytest.approx(100 * 7 / 8)


def test_folders_come_in_pairs_with_the_same_classes(folders: KnnConfig, tmp_path: Path) -> None:
    encoder = ColourEncoder()
    for one in (replace(folders, val=None), replace(folders, train=None)):
        with pytest.raises(ValueError, match="both --train and --val"):
            one.sources(encoder)  # type: ignore[arg-type]
    other = write_images(tmp_path / "other", {"blue": [BLUE], "pink": [RED]})
    with pytest.raises(ValueError, match="differ in their classes: green, pink, red, white, x"):
        replace(folders, val=other).sources(encoder)  # type: ignore[arg-type]


def test_without_folders_there_are_scenes_that_were_not_trained_on() -> None:
    encoder = ColourEncoder()
    encoder.image_size = (32, 40)
    train, val = KnnConfig(scenes=40).sources(encoder)  # type: ignore[arg-type]
    assert (len(train), len(val)) == (40, 20)
    assert train.classes == val.classes
    assert train.image(0).shape == (3, 32, 40)
    pictures = {train.image(index).numpy().tobytes() for index in range(40)}
    assert not any(val.image(index).numpy().tobytes() in pictures for index in range(20))


def test_leave_one_out_asks_all_but_the_image_itself(labelled: tuple[Tensor, Tensor, Tensor]) -> None:
    train, labels, _ = labelled
    train[3] = train[4]  # equal features of two images, whose labels differ: neither may find itself
    right = 0
    for i in range(len(train)):
        others = [j for j in range(len(train)) if j != i]
        votes = naive_votes(train[others].tolist(), labels[others].tolist(), train[i].tolist(), 4, 7)
        right += votes.index(max(votes)) == labels[i].item()
    assert leave_one_out_accuracy(train, labels, k=7) == pytest.approx(100 * right / len(train))


def test_leave_one_out_of_two_images() -> None:
    features = torch.tensor([[1.0, 0.0], [0.9, 0.1]])
    assert leave_one_out_accuracy(features, torch.tensor([1, 1])) == 100
    assert leave_one_out_accuracy(features, torch.tensor([0, 1])) == 0
