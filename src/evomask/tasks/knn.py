"""k nearest neighbours in the features of a frozen encoder: the quickest look at what it has learnt.

The protocol is DINO's (Caron et al., 2021): k = 20, cosine similarity, votes weighted by exp(similarity / 0.07).
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot
from torch.utils.data import DataLoader

from evomask.data.images import ImageFolder, ImageSource
from evomask.data.labelled import LabelledImages
from evomask.data.scenes import Scenes
from evomask.engine import distributed
from evomask.engine.pretrain import normalise
from evomask.engine.progress import ProgressBar
from evomask.models.encoders import Encoder


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """What to compare, and how.

    Attributes:
        train: a folder with a sub-folder of images for each class: the neighbours. None: the embedded `scenes`.
        val: a folder with the same sub-folders: the images to classify.
        scenes: training scenes where no folders are given; half as many are classified.
        k: neighbours that vote.
        temperature: the smaller, the more the nearest count.
        batch_size: images at a time.
        workers: processes that load images.
        device: "auto", "cpu", "cuda".
    """

    train: Path | None = None
    val: Path | None = None
    scenes: int = 2_000
    k: int = 20
    temperature: float = 0.07
    batch_size: int = 128
    workers: int = 2
    device: str = "auto"

    def sources(self, encoder: Encoder) -> tuple[ImageSource, ImageSource]:
        """Training and validation images of the encoder's size and channels.

        Raises:
            ValueError: only one of the folders is given, or their classes differ.
        """
        if (self.train is None) != (self.val is None):
            raise ValueError("give both --train and --val, or neither for the embedded scenes")
        if self.train is None or self.val is None:
            size, channels = encoder.image_size, encoder.in_chans
            val_count = max(1, self.scenes // 2)
            return Scenes(size, self.scenes, channels=channels), Scenes(size, val_count, split="val", channels=channels)
        train, val = (ImageFolder(root, channels=encoder.in_chans) for root in (self.train, self.val))
        if train.classes != val.classes:
            differing = sorted(set(train.classes) ^ set(val.classes))
            raise ValueError(f"{self.train} and {self.val} differ in their classes: {', '.join(differing[:5])}")
        return train, val


def evaluate_knn(encoder: Encoder, config: KnnConfig) -> dict[str, float]:
    """Accuracy of `encoder` in percent: `top1`, `top5`, and `majority`, that of always naming the commonest class."""
    train, val = config.sources(encoder)
    train_features, train_labels = extract_features(encoder, train, config, "training images")
    val_features, val_labels = extract_features(encoder, val, config, "validation images")
    scores = class_votes(train_features, train_labels, val_features, len(train.classes), config.k, config.temperature)
    ranked = scores.argsort(dim=1, descending=True)
    correct = ranked == val_labels.unsqueeze(1)
    majority = train_labels.bincount().argmax()
    return {
        "top1": 100 * correct[:, :1].any(dim=1).double().mean().item(),
        "top5": 100 * correct[:, :5].any(dim=1).double().mean().item(),
        "majority": 100 * (val_labels == majority).double().mean().item(),
    }


@torch.no_grad()
def extract_features(encoder: Encoder, source: ImageSource, config: KnnConfig, title: str) -> tuple[Tensor, Tensor]:
    """Features (n, D) and labels (n,) of all images, on the CPU."""
    device = distributed.pick_device(config.device)
    encoder.model.to(device)
    dataset = LabelledImages(source, encoder.image_size)
    loader = DataLoader(dataset, config.batch_size, num_workers=config.workers)
    bar = ProgressBar(title, len(dataset))
    features, labels = [], []
    for images_uint8, label in loader:
        images = normalise(images_uint8.to(device), encoder.mean, encoder.std)
        features.append(encoder.features(images).float().cpu())
        labels.append(label)
        bar.update(sum(len(part) for part in labels))
    bar.close()
    return torch.cat(features), torch.cat(labels)


def class_votes(
    train_features: Tensor, train_labels: Tensor, features: Tensor, classes: int, k: int, temperature: float
) -> Tensor:
    """(n, classes) float, the weighted votes of the k training features nearest to each of `features` (n, D)."""
    votes = []
    neighbours = normalize(train_features, dim=1)
    for part in normalize(features, dim=1).split(1024):  # never all similarities at once
        similarity, nearest = (part @ neighbours.T).topk(min(k, len(neighbours)), dim=1)
        weight = (similarity / temperature).exp().unsqueeze(-1)
        votes.append((one_hot(train_labels[nearest], classes) * weight).sum(dim=1))
    return torch.cat(votes)
