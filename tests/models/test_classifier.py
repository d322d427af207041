"""Classifiers made of encoders: what the head sees, and stochastic depth, on ViT, BEiT and Swin of timm."""

import pytest
import timm
import torch
from timm.layers import DropPath
from timm.models.deit import VisionTransformerDistilled
from torch import nn

from evomask.models.classifier import add_classifier
from evomask.models.vit import ViTConfig, build_vit

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def vit(**options):
    config = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=48, depth=3, heads=3, **options)
    return build_vit(config).eval()


def beit():
    sizes = {"embed_dim": 48, "depth": 3, "num_heads": 3, "img_size": 32, "patch_size": 8}
    return timm.create_model("beit_base_patch16_224", num_classes=0, **sizes).eval()


def swin():
    sizes = {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 2), "img_size": 32, "patch_size": 4, "window_size": 4}
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, **sizes).eval()


def test_a_vit_norms_the_mean_of_its_patches_by_a_norm_of_its_own() -> None:
    model = vit(registers=2)
    tokens = model.blocks(model.norm_pre(model._pos_embed(model.patch_embed(IMAGES))))
    mean = tokens[:, 3:].mean(dim=1)
    nn.init.normal_(model.norm.weight)  # the encoder's own norm has no part in it
    classifier = add_classifier(model, 5).eval()
    nn.init.normal_(classifier.head.weight)
    expected = nn.functional.layer_norm(mean, (48,), eps=1e-6) @ classifier.head.weight.T + classifier.head.bias
    torch.testing.assert_close(classifier(IMAGES), expected, atol=1e-5, rtol=1e-5)


def test_the_class_token_is_seen_where_asked_for() -> None:
    model = vit()
    token = model.forward_features(IMAGES)[:, 0]
    classifier = add_classifier(model, 5, pooling="token").eval()
    nn.init.normal_(classifier.head.weight)
    expected = token @ classifier.head.weight.T + classifier.head.bias
    torch.testing.assert_close(classifier(IMAGES), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("build", [vit, beit, swin])
def test_logits_begin_near_zero_and_depth_is_stochastic(build) -> None:
    classifier = add_classifier(build(), 7, drop_path=0.2).eval()
    logits = classifier(IMAGES)
    assert logits.shape == (2, 7)
    assert logits.abs().max() < 1e-2
    rates = [module.drop_prob for module in classifier.modules() if isinstance(module, DropPath)]
    blocks = 2 if build is swin else 3
    assert rates == [rate for i in range(1, blocks) for rate in [0.2 * i / (blocks - 1)] * 2]
    logits.sum().backward()
    assert classifier.get_classifier().weight.grad is not None


def test_a_distilled_deit_learns_from_both_its_tokens() -> None:
    def deit() -> VisionTransformerDistilled:
        return VisionTransformerDistilled(img_size=16, patch_size=4, embed_dim=48, depth=2, num_heads=3)

    classifier = add_classifier(deit(), 5, pooling="token").eval()
    assert all(head.weight.std() < 1e-3 and not head.bias.any() for head in classifier.get_classifier())
    assert classifier(torch.rand(2, 3, 16, 16)).shape == (2, 5)
    with pytest.raises(ValueError, match="take --pooling token"):
        add_classifier(deit(), 5, pooling="mean")


@pytest.mark.parametrize("build", [swin, lambda: vit(class_token=False)])
def test_a_class_token_that_is_not_there_is_refused(build) -> None:
    with pytest.raises(ValueError, match="has no class token: use the mean over patches"):
        add_classifier(build(), 5, pooling="token")
