import pytest
import torch

from evomask.analysis.mask_difficulty import loss_by_depth
from evomask.masking import EvolvedMasking, RandomMasking
from evomask.models.mae import MAE, MAEConfig
from evomask.models.simmim import SimMIMConfig
from evomask.models.vit import ViTConfig

VIT = ViTConfig(name="vit_tiny_patch16_224", image_size=(24, 32), patch_size=8, width=24, heads=2, depth=2)


@pytest.fixture(scope="module")
def inputs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 24, 32, generator=generator), torch.rand(3, 12, generator=generator)


@pytest.mark.parametrize("config", [MAEConfig(encoder=VIT, decoder_width=16, decoder_depth=1, decoder_heads=2),
                                    SimMIMConfig(encoder=VIT)])  # fmt: skip
def test_the_mean_over_images_is_the_hosts_loss_behind_that_mask(config, inputs):
    torch.manual_seed(0)
    host, (images, noise) = config.build().eval(), inputs
    found = loss_by_depth(host, images, noise, (0.0, 0.5), EvolvedMasking())
    assert found.shape == (2, 3)
    tokens = host.embed(images)
    masks = [RandomMasking()(noise, host.grid), EvolvedMasking()(noise, host.grid, 0.5, host.affinity(tokens))]
    for losses, mask in zip(found, masks, strict=True):
        assert losses.mean().item() == pytest.approx(host(images, tokens, mask).loss.item(), rel=1e-5)


def test_by_hand(inputs):
    """A decoder that always says zero is wrong by the square of the pixels, which without normalisation is known."""
    torch.manual_seed(0)
    host: MAE = (
        MAEConfig(encoder=VIT, decoder_width=16, decoder_depth=1, decoder_heads=2, normalise_pixels=False).build().eval()
    )
    torch.nn.init.zeros_(host.decoder_head.weight)
    images = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1).expand(3, 3, 24, 32)
    found = loss_by_depth(host, images, inputs[1], (0.0, 0.3, 0.9), EvolvedMasking())
    torch.testing.assert_close(found, torch.tensor([1.0, 4.0, 9.0]).expand(3, 3))
