import sys

import pytest
import torch
from torch import nn

from evomask.models.feature_pyramid import FeaturePyramid
from evomask.models.segmenter import Segmenter
from evomask.models.vit import ViTConfig


def segmenter(**options) -> Segmenter:
    config = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=16, depth=2, heads=2)
    return Segmenter(FeaturePyramid(config.build(), (32, 32)), 5, head_channels=8, auxiliary_channels=4, **options)


@pytest.mark.parametrize("size", [(32, 32), (30, 45), (16, 64)])
def test_a_logit_for_each_pixel(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    model = segmenter().eval()
    main, auxiliary = model.with_auxiliary(images)
    assert main.shape == auxiliary.shape == (2, 5, *size)
    assert main.equal(model(images))


def test_filling_up_leaves_pixels_where_they_are() -> None:
    """Logits of an image that was filled up are those of the filled up image, cut, not squeezed."""
    model, images = segmenter().eval(), torch.randn(1, 3, 24, 40)
    filled_up = nn.functional.pad(images, (0, 8, 0, 8))
    assert model(images).equal(model(filled_up)[..., :24, :40])


def test_all_of_it_is_trained() -> None:
    model = segmenter().train()
    main, auxiliary = model.with_auxiliary(torch.randn(2, 3, 32, 32))
    (main.square().mean() + auxiliary.square().mean()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers.models.upernet.modeling_upernet", None)
    with pytest.raises(ValueError, match=r"pip install 'evomask\[transformers\]'"):
        segmenter()
