"""k nearest neighbours in the features of a frozen encoder: the quickest look at what it has learnt.

Neighbours vote as DINO's (Caron et al., 2021): k = 20, cosine similarity, votes weighted by exp(similarity / 0.07). Features
are the mean of the patch tokens unless the class token is asked for, and images are seen whole.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from evomask.engine import distributed
from evomask.models.encoders import Encoder, Pooling
from evomask.tasks.features import extract_features
from evomask.tasks.labelled_data import LabelledDataConfig


@dataclass(frozen=True, kw_only=True)
class KnnConfig(LabelledDataConfig):
    """What to compare, and how. The training images are the neighbours, those for validation are classified.

    Attributes:
        k: neighbours that vote.
        temperature: the smaller, the more the nearest count.
        pooling: the features: the mean over patch tokens, or the class token, which is DINO's choice.
        batch_size: images at a time.
        device: "auto", "cpu", "cuda".
    """

    k: int = 20
    temperature: float = 0.07
    pooling: Pooling = "mean"
    batch_size: int = 128
    device: str = "auto"

    def __post_init__(self):
        if self.k < 1:
            raise ValueError(f"--k must be at least 1, not {self.k}")
        if self.temperature <= 0:
            raise ValueError(f"--temperature must be above 0, not {self.temperature}")


def evaluate_knn(encoder: Encoder, config: KnnConfig) -> dict[str, float]:
    """Accuracy of `encoder` in percent: `top1`, `top5`, and `majority`, that of always naming the commonest class."""
    train, val = config.sources(encoder)
    looks = {
        "device": distributed.pick_device(config.device),
        "workers": config.workers,
        "batch_size": config.batch_size,
        "pooling": config.pooling,
    }
    train_features, train_labels = extract_features(encoder, train, "training images", **looks)
    val_features, val_labels = extract_features(encoder, val, "validation images", **looks)
    scores = class_votes(train_features, train_labels, val_features, len(train.classes), config.k, config.temperature)
    ranked = scores.argsort(dim=1, descending=True)
    correct = ranked == val_labels.unsqueeze(1)
    majority = train_labels.bincount().argmax()
    return {
        "top1": 100 * correct[:, :1].any(dim=1).double().mean().item(),
        "top5": 100 * correct[:, :5].any(dim=1).double().mean().item(),
        "majority": 100 * (val_labels == majority).double().mean().item(),
    }


def class_votes(
    train_features: Tensor, train_labels: Tensor, features: Tensor, classes: int, k: int, temperature: float
) -> Tensor:
    """(n, classes) float, the shares of the weighted votes of the k training features nearest to each of `features` (n, D)."""
    neighbours = normalize(train_features, dim=1)
    parts = normalize(features, dim=1).split(1024)  # never all similarities at once
    return torch.cat([_votes(part @ neighbours.T, train_labels, classes, k, temperature) for part in parts])


def leave_one_out_accuracy(
    features: Tensor, labels: Tensor, k: int = KnnConfig.k, temperature: float = KnnConfig.temperature
) -> float:
    """Top-1 accuracy in percent where each of `features` (n, D) is classified by the k nearest of the other ones.

    Args:
        features: of some thousand images at most: all their similarities are held at once.
        labels: (n,) long.
        k: neighbours that vote.
        temperature: the smaller, the more the nearest count.
    """
    unit = normalize(features, dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    votes = _votes(similarity, labels, int(labels.max()) + 1, k, temperature)
    return 100 * (votes.argmax(dim=1) == labels).double().mean().item()


def _votes(similarity: Tensor, train_labels: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    nearest_similarity, nearest = similarity.topk(min(k, similarity.shape[1]), dim=1)
    weight = (nearest_similarity / temperature).softmax(dim=1).unsqueeze(-1)  # exp alone overflows at a low temperature
    return (one_hot(train_labels[nearest], classes) * weight).sum(dim=1)
