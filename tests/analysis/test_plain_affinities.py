import torch

from evomask.analysis.label_agreement import label_agreement, patch_labels
from evomask.analysis.plain_affinities import PLAIN_AFFINITIES
from evomask.masking import build_hierarchy

GRID = (4, 6)


def halves() -> tuple[torch.Tensor, torch.Tensor]:
    """Two images, dark to the left and bright to the right, a little noisy; and where they are bright."""
    bright = (torch.arange(24) >= 12).long().expand(2, 16, 24)
    noise = 0.01 * torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    return bright.unsqueeze(1) + noise, bright


def test_colours_tell_what_differs_in_colour() -> None:
    images, labels = halves()
    tree = build_hierarchy(PLAIN_AFFINITIES["colour"](images, GRID))
    assert label_agreement(tree, patch_labels(labels, GRID)).purity == 1


def test_position_does_not_look_at_the_image_and_joins_neighbours() -> None:
    images, _ = halves()
    affinity = PLAIN_AFFINITIES["position"](images, GRID)
    assert affinity.equal(PLAIN_AFFINITIES["position"](images.flip(3), GRID))
    tree = build_hierarchy(affinity)
    first, second = tree.children[0, 0].tolist()
    assert abs(first // 6 - second // 6) + abs(first % 6 - second % 6) == 1


def test_chance_is_the_same_each_time_and_worst() -> None:
    images, labels = halves()
    purity = {}
    for name, affinity_of in PLAIN_AFFINITIES.items():
        affinity = affinity_of(images, GRID)
        assert affinity.shape == (2, 24, 24) and affinity.equal(affinity_of(images, GRID))
        purity[name] = label_agreement(build_hierarchy(affinity), patch_labels(labels, GRID)).purity
    assert min(purity, key=purity.__getitem__) == "chance"
    assert purity["colour_and_position"] == 1


def test_an_image_of_one_colour_has_a_tree_too() -> None:
    for affinity_of in PLAIN_AFFINITIES.values():
        assert affinity_of(torch.zeros(1, 3, 16, 24), GRID).isfinite().all()
