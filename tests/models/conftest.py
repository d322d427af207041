"""What tests of loading weights share."""

import logging
from collections.abc import Callable

import pytest
import torch
from timm.data.constants import IMAGENET_DEFAULT_MEAN
from torch import Tensor, nn

from evomask.models.encoders import Encoder, load_encoder


@pytest.fixture
def photos() -> Tensor:
    """Two images of 32 x 32 px."""
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def randomise() -> Callable[[nn.Module], nn.Module]:
    """Gives every parameter a value of its own, so that each one that is lost or misplaced shows."""

    def randomise(model: nn.Module) -> nn.Module:
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                noise = 0.2 * torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise + 1 if "norm" in name and name.endswith("weight") else noise)
        return model.eval().requires_grad_(False)

    return randomise


@pytest.fixture
def expect(photos: Tensor, caplog: pytest.LogCaptureFixture) -> Callable[..., Encoder]:
    """Loads the encoder of a spec, of which nothing may be missing or unexpected, and compares what it makes of the images."""

    @torch.no_grad()
    def expect(
        spec: str,
        images: Tensor = photos,
        layout: str | None = None,
        left_out: str | None = None,
        channel_mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
        **expected: Tensor | None,
    ) -> Encoder:
        """Layout and what was left out as the log says; `expected`: class_token, patches, mean, logits."""
        caplog.clear()
        with caplog.at_level(logging.INFO, "evomask"):
            encoder = load_encoder(spec)
        [account] = caplog.messages
        assert "missing: none; unexpected: none; " in account
        if layout is not None:
            assert account.startswith(f"{spec}: {layout}: loaded ")
            assert ("left out" in account) == (left_out is not None)
        if left_out is not None:
            assert f"; left out: {left_out}; " in account
        assert encoder.mean == channel_mean
        assert not encoder.model.training
        made = {
            "class_token": lambda: encoder.features(images, "token"),
            "patches": lambda: encoder.patch_tokens(images),
            "mean": lambda: encoder.features(images),
            "logits": lambda: encoder.model(images),
        }
        for what, value in expected.items():
            if value is not None:
                assert value.std() > 0.01, f"the {what} would not tell one model from another"
                torch.testing.assert_close(made[what](), value, atol=1e-5, rtol=1e-5)
        return encoder

    return expect
