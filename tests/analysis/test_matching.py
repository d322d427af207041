"""Matches of patches, against a loop over all pairs, and where an image is moved."""

import pytest
import torch
from torch.nn.functional import cosine_similarity

from evomask.analysis.matching import match_patches
from evomask.models.encoders import Encoder
from evomask.models.vit import ViTConfig, absolute_positions, build_vit

MEAN, STD = (0.5,) * 3, (0.25,) * 3


@pytest.fixture
def encoder() -> Encoder:
    torch.manual_seed(0)
    config = ViTConfig(name="vit_tiny_patch16_224", image_size=(16, 24), patch_size=4, width=32, depth=1, heads=2)
    model = build_vit(config)
    with torch.no_grad():
        absolute_positions(model).zero_()
    return Encoder.of(model, MEAN, STD, "tiny")


@torch.no_grad()
def test_it_equals_a_loop_over_all_pairs(encoder: Encoder) -> None:
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    found = match_patches(encoder, images, most=100)
    tokens = encoder.patch_tokens(images)
    one, other = tokens - tokens.reshape(-1, 32).mean(dim=0)
    table = [[float(cosine_similarity(a, b, dim=0)) for b in other] for a in one]
    expected = set()
    for row in range(24):
        column = max(range(24), key=lambda j: table[row][j])
        if row == max(range(24), key=lambda i: table[i][column]):
            expected.add((row, column))
    assert set(zip(found.first.tolist(), found.second.tolist(), strict=True)) == expected
    assert found.grid == (4, 6)
    similarity = torch.tensor([table[a][b] for a, b in zip(found.first.tolist(), found.second.tolist(), strict=True)])
    torch.testing.assert_close(found.similarity, similarity)
    assert torch.equal(found.similarity, found.similarity.sort(descending=True).values)
    few = match_patches(encoder, images, most=3)
    assert few.first.tolist() == found.first[:3].tolist()


def test_an_image_whose_patches_are_moved_is_matched_to_where_they_went(encoder: Encoder) -> None:
    image = torch.randn(3, 4, 4, 6, 4, generator=torch.Generator().manual_seed(0))  # rows and columns of patches of 4 x 4
    moved = image.roll((1, 2), dims=(1, 3))
    found = match_patches(encoder, torch.stack((image, moved)).view(2, 3, 16, 24), most=24)
    went = {row * 6 + column: (row + 1) % 4 * 6 + (column + 2) % 6 for row in range(4) for column in range(6)}
    assert dict(zip(found.first.tolist(), found.second.tolist(), strict=True)) == went
    assert found.similarity.min() > 0.999
