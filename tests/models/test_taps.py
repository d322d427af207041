"""Each kind of encoder is asked as its own file says; what is not known is refused."""

import pytest
import timm
import torch

from evomask.models import beit_encoder
from evomask.models.beit_encoder import BEiTEncoderConfig
from evomask.models.swin import CellAttention, SwinConfig
from evomask.models.taps import attention_tap
from evomask.models.vit import ViTConfig, embed_patches, mean_patch_attention

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_vit_is_asked_for_its_patches():
    vit = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=24, depth=3, heads=2).build().eval()
    tap = attention_tap(vit)
    maps = tap.by_block(IMAGES, 2)
    assert tap.grid == (4, 4) and maps.shape == (2, 2, 16, 16) and not maps.requires_grad
    torch.testing.assert_close(maps.mean(dim=1), mean_patch_attention(vit, embed_patches(vit, IMAGES), 2))
    assert tap.by_block(IMAGES, 9).shape[1] == 3


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_a_swin_is_asked_for_its_cells(name):
    config = SwinConfig(name=name, image_size=(32, 32), window=4, width=8, depths=(2, 2), heads=(1, 2))
    swin = config.build().eval()
    tap = attention_tap(swin)
    maps = tap.by_block(IMAGES, 3)
    assert tap.grid == (8, 8) and maps.shape == (2, 3, 64, 64) and not maps.requires_grad
    torch.testing.assert_close(maps.mean(dim=1), CellAttention(swin, 4, 3)(swin, swin.patch_embed(IMAGES)))
    coarse = attention_tap(swin, cell=16)
    assert coarse.grid == (2, 2) and coarse.by_block(IMAGES, 3).shape == (2, 3, 4, 4)


@pytest.mark.parametrize("bias", ["shared", "per_block"])
def test_a_beit_is_asked_for_its_patches(bias):
    config = BEiTEncoderConfig(image_size=(32, 32), patch_size=8, width=24, depth=3, heads=2, position_bias=bias)
    beit = config.build().eval()
    tap = attention_tap(beit)
    maps = tap.by_block(IMAGES, 2)
    assert tap.grid == (4, 4) and maps.shape == (2, 2, 16, 16) and not maps.requires_grad
    torch.testing.assert_close(maps.mean(dim=1), beit_encoder.mean_patch_attention(beit, beit.patch_embed(IMAGES), 2))


def test_other_encoders_are_refused():
    with pytest.raises(ValueError, match=r"expected one of timm's VisionTransformer, .*SwinTransformerV2.*, not a ResNet"):
        attention_tap(timm.create_model("test_resnet"))
