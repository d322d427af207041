import numpy as np
import torch

from evomask.figures.attention import middle_queries
from evomask.figures.reconstruction import denormalise
from evomask.figures.show import image_noise, show_attention, show_hierarchy, show_masks, show_reconstruction
from evomask.masking import EvolvedMasking, RandomMasking, build_hierarchy, masking_depth
from evomask.masking.affinity import AFFINITIES
from evomask.models.taps import attention_tap
from evomask.models.vit import attention_maps, embed_patches

GRID = (3, 4)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def hidden(ax) -> list[bool]:
    """Where the grey lies over a picture: the opacity of its last image."""
    return (ax.images[-1].get_array()[..., 3] > 0).ravel().tolist()


def attention_of(encoder, images):
    maps = attention_maps(encoder, embed_patches(encoder, images), 6)
    return torch.stack([m.mean(dim=1)[:, 3:, 3:] for m in maps], dim=1).detach()  # class token and two registers


def test_masks_are_a_random_one_and_the_evolved_ones(host, images, originals):
    figure = show_masks(attention_tap(host.encoder), images, originals, progress=(0.0, 0.5), seed=4)
    axes = np.array(figure.axes).reshape(2, 4)
    noise = image_noise(2, GRID, seed=4)
    random = RandomMasking()(noise, GRID).masked
    half = EvolvedMasking()(noise, GRID, 0.5, attention_of(host.encoder, images).mean(dim=1)).masked
    for image in range(2):
        assert hidden(axes[image, 1]) == hidden(axes[image, 2]) == random[image].tolist()
        assert hidden(axes[image, 3]) == half[image].tolist()


def test_hierarchy_takes_the_affinity_and_linkage_of_the_masking(host, images, originals):
    masking = EvolvedMasking(affinity="profile", linkage="average")
    figure = show_hierarchy(attention_tap(host.encoder), images, originals, masking=masking, fractions=(0.5,))
    affinity = AFFINITIES["profile"](attention_of(host.encoder, images).mean(dim=1))
    trees = build_hierarchy(affinity, "average")
    depth = masking_depth(trees.height, 0.5)
    group_BN = trees.cut(depth)
    for image in range(2):
        text = f"depth {depth[image]}/{trees.height[image]} · {len(group_BN[image].unique())} groups"
        assert figure.axes[2 * image + 1].texts[0].get_text() == text


def test_attention_is_between_patches_without_class_token_and_registers(host, images, originals):
    figure = show_attention(attention_tap(host.encoder), images, originals, queries=[(1, 2)])
    axes = np.array(figure.axes).reshape(2, 2 + 3)
    attention = attention_of(host.encoder, images)
    for image in range(2):
        for block in range(3):
            assert np.allclose(axes[image, 2 + block].images[0].get_array().ravel(), attention[image, block, 6])


def test_two_patches_are_asked_where_none_is_named(host, images, originals):
    axes = np.array(show_attention(attention_tap(host.encoder), images, originals).axes).reshape(4, 2 + 3)
    attention = attention_of(host.encoder, images)
    for line, (image, (row, column)) in enumerate((image, query) for image in range(2) for query in middle_queries(GRID)):
        seen = attention[image, 0, row * GRID[1] + column]
        assert np.allclose(axes[line, 2].images[0].get_array().ravel(), seen)


def test_reconstruction_stands_beside_its_mask(host, images, originals):
    figure = show_reconstruction(host, images, originals, MEAN, STD, seed=1)
    axes = np.array(figure.axes).reshape(2, 5)
    assert [ax.get_title() for ax in axes[0]] == ["original", "random mask", "restored", "evolved, 50%", "restored"]
    mask = RandomMasking()(image_noise(2, GRID, seed=1), GRID)
    restored = denormalise(host.reconstruct(images, mask), MEAN, STD)
    for image in range(2):
        assert hidden(axes[image, 1]) == mask.masked[image].tolist()
        assert np.array_equal(axes[image, 2].images[0].get_array(), restored[image].permute(1, 2, 0))


def test_noise_is_a_function_of_seed_and_place():
    state = torch.get_rng_state()
    assert image_noise(3, GRID, seed=0)[:2].equal(image_noise(2, GRID, seed=0))
    assert not image_noise(1, GRID, seed=0).equal(image_noise(1, GRID, seed=1))
    assert torch.get_rng_state().equal(state)
