"""Training crops with labels: functions of (seed, epoch, index); and stratified parts of a data set."""

import random
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evomask.data.labelled_crops import LabelledCrops, StratifiedSubset, rand_augment
from evomask.data.layouts import open_images
from evomask.data.sampler import sample_seed
from evomask.data.scenes import Scenes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label, count in {"a": 10, "b": 4, "c": 1}.items():
        (tmp_path / label).mkdir()
        for number in range(count):
            pixels = np.random.default_rng(number).integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / label / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("distortion", [None, "rand-m9-mstd0.5-inc1"])
def test_a_crop_is_a_function_of_seed_epoch_and_index(distortion: str | None) -> None:
    crops = LabelledCrops(Scenes((32, 32), 8), (24, 16), 3, seed=1, distortion=distortion)
    first = crops[0, 3]
    torch.rand(3), random.random(), np.random.rand()
    assert torch.equal(crops[0, 3][0], first[0])
    assert first[0].shape == (3, 24, 16) and first[0].dtype == torch.uint8
    assert first[1:] == (crops.source.label(3), 3)
    assert not torch.equal(crops[1, 3][0], first[0])
    other_seed = LabelledCrops(Scenes((32, 32), 8), (24, 16), 3, seed=2, distortion=distortion)
    assert not torch.equal(other_seed[0, 3][0], first[0])


def test_distortions_distort() -> None:
    plain, distorted = (LabelledCrops(Scenes((32, 32), 16), (32, 32), 3, 0, distortion=name) for name in (None, "rand-m9-p1"))
    changed = sum(not torch.equal(plain[0, i][0], distorted[0, i][0]) for i in range(16))
    assert changed >= 14


def test_the_label_is_that_of_the_image_that_takes_a_broken_ones_place(folder: Path) -> None:
    (folder / "a" / "0.png").write_text("no image")
    source = open_images(folder)
    _, label, used = LabelledCrops(source, (8, 8), 3, seed=0)[0, 0]
    assert used != 0
    assert label == source.label(used)


def test_a_share_of_every_class_is_kept_and_at_least_one_image(folder: Path) -> None:
    source = open_images(folder)
    half = StratifiedSubset(source, 0.5, seed=0)
    assert Counter(half.label(i) for i in range(len(half))) == {0: 5, 1: 2, 2: 1}
    hundredth = StratifiedSubset(source, 0.01, seed=0)
    assert Counter(hundredth.label(i) for i in range(len(hundredth))) == {0: 1, 1: 1, 2: 1}
    names = [half.name(i) for i in range(len(half))]
    assert names == sorted(set(names))
    assert [StratifiedSubset(source, 0.5, seed=0).name(i) for i in range(len(half))] == names
    assert [StratifiedSubset(source, 0.5, seed=1).name(i) for i in range(len(half))] != names
    assert torch.equal(half.image(0), open_images(folder).image([source.name(i) for i in range(len(source))].index(names[0])))


@pytest.mark.parametrize(("share", "seed"), [(0.5, 0), (0.1, 3), (1.0, 1)])
def test_the_choice_is_that_of_a_plain_loop_over_classes(share: float, seed: int) -> None:
    source = Scenes((32, 32), 60)
    members = defaultdict(list)
    for index in range(60):
        members[source.label(index)].append(index)
    generator = np.random.default_rng(sample_seed(seed))
    chosen = [generator.permutation(ones)[: max(1, round(share * len(ones)))] for _, ones in sorted(members.items())]
    subset = StratifiedSubset(source, share, seed)
    names = [source.name(index) for index in sorted(np.concatenate(chosen).tolist())]
    assert [subset.name(index) for index in range(len(subset))] == names


def test_mistakes_are_named(tmp_path: Path, folder: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "flat.png")
    with pytest.raises(ValueError, match="have no labels: put those of each class in a folder"):
        LabelledCrops(open_images(tmp_path), (8, 8), 3, seed=0)
    with pytest.raises(ValueError, match="RandAugment distorts images of 3 channels, not of 1"):
        LabelledCrops(Scenes((32, 32), 4, channels=1), (8, 8), 1, seed=0, distortion="rand-m9")
    with pytest.raises(ValueError, match="'augmix-m3' is no RandAugment that timm knows"):
        rand_augment("augmix-m3", (8, 8))
    with pytest.raises(ValueError, match="share of labels must be above 0 and at most 1, not 0"):
        StratifiedSubset(Scenes((32, 32), 4), 0, seed=0)


def test_every_distortion_can_be_applied_at_its_highest_magnitude() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), np.uint8))
    for operation in rand_augment("rand-m9-mstd0.5-inc1", (24, 24)).ops:
        operation.prob, operation.magnitude, operation.magnitude_std = 1.0, 10, 0
        assert operation(image).size == (24, 24)
