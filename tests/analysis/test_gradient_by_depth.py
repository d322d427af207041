import math

import pytest
import timm
import torch
from torch import nn

from evomask.analysis.gradient_by_depth import GradientByDepth, mean_gradients
from evomask.models.vit import ViTConfig, build_vit


class Block(nn.Module):
    """y = weight * x, with the attribute by which timm's blocks are told."""

    def __init__(self, weight: float):
        super().__init__()
        self.weight, self.drop_path1 = nn.Parameter(torch.full((2,), weight)), nn.Identity()

    def forward(self, x):
        return self.weight * x


def test_by_hand():
    model = nn.Sequential(Block(2.0), Block(-3.0))
    watched = GradientByDepth(model)
    assert watched.row() == {}
    model(torch.tensor([1.0, 5.0])).sum().backward()
    # d/dw1 = w2 * x = -3, -15; d/dw2 = w1 * x = 2, 10
    assert watched.row() == {"gradient_block_1": 9, "gradient_block_2": 6}


def test_the_newest_gradient_is_kept_when_the_optimiser_has_thrown_it_away():
    torch.manual_seed(0)
    vit = build_vit(ViTConfig(name="vit_tiny_patch16_224", image_size=(16, 16), patch_size=8, width=24, heads=2, depth=3))
    watched = GradientByDepth(vit)
    vit(torch.randn(2, 3, 16, 16)).square().mean().backward()
    expected = [torch.cat([p.grad.flatten() for p in block.parameters()]).abs().mean().item() for block in vit.blocks]
    vit.zero_grad(set_to_none=True)
    assert list(watched.row().values()) == pytest.approx(expected, rel=1e-5)


def test_swin_has_blocks_too():
    swin = timm.create_model("swin_tiny_patch4_window7_224", img_size=56, embed_dim=12, depths=(1, 2), num_heads=(1, 1))
    watched = GradientByDepth(swin)
    swin(torch.randn(1, 3, 56, 56)).square().mean().backward()
    assert list(watched.row()) == [f"gradient_block_{block}" for block in (1, 2, 3)]


def test_means_over_the_steps_where_gradients_were_noted():
    rows = [{"step": 0, "gradient_block_1": 1.0, "gradient_block_2": 4.0}, {"step": 1}]
    rows += [{"step": 2, "gradient_block_1": 3.0, "gradient_block_2": 0.0}]
    assert mean_gradients(rows) == [2, 2]
    rows = [{"step": 0, "gradient_block_2": 1.0, "gradient_block_3": 5.0}, {"step": 1, "gradient_block_2": 2.0}]
    assert mean_gradients(rows) == pytest.approx([math.nan, 1.5, 5.0], nan_ok=True), "the first is frozen, one was not finite"
    with pytest.raises(ValueError, match="--gradients True"):
        mean_gradients([{"step": 0, "loss": 1.0}])
