import pytest
import torch

from evomask.analysis.attention_distance import distance_by_block_and_head, mean_attention_distance
from evomask.analysis.head_attention import class_attention, patch_attention
from evomask.models.vit import ViTConfig, build_vit

GRID = (3, 4)


@pytest.fixture(scope="module")
def vit():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        name = "vit_tiny_patch16_224"
        config = ViTConfig(name=name, image_size=(24, 32), patch_size=8, width=24, heads=3, depth=2, registers=2)
        return build_vit(config).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def softmax_by_hook(vit, images) -> list[torch.Tensor]:
    """(B, heads, L, L) of each block, from queries and keys as timm's own layers give them in a whole forward pass."""
    found = []

    def note(attention, inputs, _output):
        (tokens,) = inputs
        query, key, _ = attention.qkv(tokens).reshape(2, -1, 3, 3, 8).permute(2, 0, 3, 1, 4)
        found.append((query @ key.transpose(-2, -1) / 8**0.5).softmax(dim=-1))

    handles = [block.attn.register_forward_hook(note) for block in vit.blocks]
    with torch.no_grad():
        vit(images)
    for handle in handles:
        handle.remove()
    return found


def test_patches_and_class_token_look_where_timms_layers_say(vit, images, softmax_by_hook):
    for block, attention in enumerate(softmax_by_hook, start=1):
        found = patch_attention(vit, images, [(0, 1), (2, 3)], block)
        assert found.shape == (2, 2, 3, 12)
        torch.testing.assert_close(found[:, 0], attention[:, :, 3 + 1, 3:])  # class token and two registers first
        torch.testing.assert_close(found[:, 1], attention[:, :, 3 + 11, 3:])
        torch.testing.assert_close(class_attention(vit, images, block), attention[:, :, 0, 3:])
    torch.testing.assert_close(class_attention(vit, images), softmax_by_hook[-1][:, :, 0, 3:])


def test_distances_are_those_of_every_head(vit, images, softmax_by_hook):
    found = distance_by_block_and_head(vit, images)
    assert found.shape == (2, 3)
    for block, attention in enumerate(softmax_by_hook):
        for head in range(3):
            expected = mean_attention_distance(attention[:, head, 3:, 3:], GRID).mean()
            assert found[block, head].item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_vit_without_queries_looks_everywhere_alike():
    """Zero weights make attention uniform: on 14 x 14 patches 7.3 sides of a patch in every head."""
    name = "vit_tiny_patch16_224"
    even = build_vit(ViTConfig(name=name, image_size=(28, 28), patch_size=2, width=24, heads=3, depth=2)).eval()
    for block in even.blocks:
        torch.nn.init.zeros_(block.attn.qkv.weight)
    found = distance_by_block_and_head(even, torch.randn(1, 3, 28, 28))
    places = [(row, column) for row in range(14) for column in range(14)]
    by_hand = sum(((a - c) ** 2 + (b - d) ** 2) ** 0.5 for a, b in places for c, d in places) / 196**2
    assert found.flatten().tolist() == pytest.approx([by_hand] * 6, rel=1e-5)
    assert by_hand == pytest.approx(7.3, abs=0.05)


def test_what_is_not_there_is_refused(vit, images):
    with pytest.raises(ValueError, match=r"patch \(3, 0\) lies outside the grid of 3 x 4 patches"):
        patch_attention(vit, images, [(3, 0)])
    with pytest.raises(ValueError, match="blocks 1 to 2, but no block 3"):
        class_attention(vit, images, 3)
    name = "vit_tiny_patch16_224"
    bare = build_vit(ViTConfig(name=name, image_size=(24, 32), patch_size=8, width=24, heads=3, depth=1, class_token=False))
    with pytest.raises(ValueError, match="no class token"):
        class_attention(bare.eval(), images)
