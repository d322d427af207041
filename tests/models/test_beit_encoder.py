"""timm's BEiT as it is built, and its attention, against timm's own blocks. Equality with transformers is shown in parity/."""

from typing import Any

import pytest
import torch
from timm.models.beit import Beit
from torch import Tensor

from evomask.models.beit_encoder import BEiTEncoderConfig, attention_maps, check_beit, mean_patch_attention
from evomask.models.vit import ViTConfig

SMALL: dict[str, Any] = {"image_size": (32, 48), "patch_size": 8, "width": 24, "depth": 3, "heads": 2}
IMAGES = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def shaken(encoder: Beit) -> Beit:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder.eval()


def built(bias: str) -> Beit:
    if bias == "absolute positions":
        positions = {"use_abs_pos_emb": True, "use_rel_pos_bias": False}
        beit = Beit(img_size=(32, 48), patch_size=8, embed_dim=24, depth=3, num_heads=2, global_pool="token", **positions)
        return shaken(beit)
    return shaken(BEiTEncoderConfig(**SMALL, position_bias=bias).build())  # pyright: ignore[reportArgumentType]


BIASES = ["shared", "per_block", "absolute positions"]


def test_a_table_for_all_or_one_a_block():
    shared, per_block = built("shared"), built("per_block")
    tables = {name for name, _ in shared.named_parameters() if name.endswith("bias_table")}
    assert tables == {"rel_pos_bias.relative_position_bias_table"}
    tables = {name for name, _ in per_block.named_parameters() if name.endswith("bias_table")}
    assert tables == {f"blocks.{block}.attn.relative_position_bias_table" for block in range(3)}
    assert shared.pos_embed is None and shared.patch_embed.grid_size == (4, 6)


def test_layer_scale():
    scaled = BEiTEncoderConfig(**SMALL, layer_scale=1e-5).build().blocks[0]
    assert scaled.gamma_1.tolist() == pytest.approx([1e-5] * 24)
    assert BEiTEncoderConfig(**SMALL, layer_scale=0.0).build().blocks[0].gamma_1 is None


@torch.no_grad()
def attention_by_timm(encoder: Beit) -> list[Tensor]:
    """The softmax of timm's own unfused attention, caught where timm drops some of it out."""
    caught: list[Tensor] = []
    hooks = []
    for block in encoder.blocks:
        block.attn.fused_attn = False
        hooks.append(block.attn.attn_drop.register_forward_hook(lambda module, inputs, output: caught.append(output)))
    encoder(IMAGES)
    for hook in hooks:
        hook.remove()
    return caught


@pytest.mark.parametrize("bias", BIASES)
@torch.no_grad()
def test_the_attention_is_that_of_timm(bias: str):
    encoder = built(bias)
    maps = list(attention_maps(encoder, encoder.patch_embed(IMAGES), 9))
    expected = attention_by_timm(encoder)
    assert len(maps) == len(expected) == 3 and maps[0].shape == (2, 2, 25, 25)
    torch.testing.assert_close(maps, expected)
    first = list(attention_maps(encoder, encoder.patch_embed(IMAGES), 2))
    torch.testing.assert_close(first, expected[:2])
    mean = torch.stack(expected[:2]).mean(dim=(0, 2))[:, 1:, 1:]
    affinity = mean_patch_attention(encoder, encoder.patch_embed(IMAGES), 2)
    torch.testing.assert_close(affinity, mean)
    assert affinity.dtype == torch.float32 and not affinity.requires_grad


@pytest.mark.parametrize("bias", BIASES)
@torch.no_grad()
def test_a_coarse_look_sees_every_second_patch_where_it_is(bias: str):
    """One block: the attention between the seen patches, as if there were no others, is timm's logits softmaxed over them."""
    encoder = built(bias)
    tokens = encoder.patch_embed(IMAGES)
    places = torch.tensor([0, 2, 4, 12, 14, 16])
    kept = torch.tensor([0, 1, 3, 5, 13, 15, 17])
    [coarse] = attention_maps(encoder, tokens[:, places], 1, places)
    logits = attention_by_timm(encoder)[0].log()[:, :, kept][..., kept]
    torch.testing.assert_close(coarse, logits.softmax(dim=-1))
    affinity = mean_patch_attention(encoder, tokens, 1, stride=2)
    assert affinity.shape == (2, 24, 24)
    torch.testing.assert_close(affinity[:, places][..., places], coarse.mean(dim=1)[:, 1:, 1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BEiTEncoderConfig(name="beit_huge").build(), "timm.list_models"),
        (lambda: BEiTEncoderConfig(name="resnet18").build(), "cannot be built as a BEiT"),
        (lambda: BEiTEncoderConfig(**SMALL | {"heads": 5}).build(), "5 heads do not divide a width of 24"),
        (lambda: BEiTEncoderConfig(**SMALL | {"image_size": (36, 48)}).build(), "do not divide an image of 36 x 48 px"),
        (lambda: BEiTEncoderConfig(depth=0), "a BEiT's depth must be at least 1"),
        (lambda: BEiTEncoderConfig(layer_scale=-1.0), "layer_scale must be 0 or more"),
        (lambda: check_beit(ViTConfig(name="vit_tiny_patch16_224", depth=1).build()), "expected a timm Beit, not a Vision"),
    ],
)
def test_what_cannot_be_built_is_said(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
