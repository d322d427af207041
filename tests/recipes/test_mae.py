"""Every recipe is what its name says: the model's size, and what it can be asked for."""

from dataclasses import replace

import pytest
import torch

from evomask.engine.pretrain import MaskingConfig
from evomask.recipes import RECIPES


def parameters_of_vit(width: int, depth: int, patch_size: int, channels: int = 3) -> int:
    """Trainable numbers of a ViT with class token and without head; the positions are fixed (Dosovitskiy et al., 2021)."""
    block = 12 * width**2 + 13 * width  # qkv 3, proj 1, mlp 4 + 4 squares; biases 3 + 1 + 4 + 1, norms 4
    return channels * patch_size**2 * width + width + width + depth * block + 2 * width


def parameters_of_decoder(width: int, depth: int, encoder_width: int, patch_size: int) -> int:
    block = 12 * width**2 + 13 * width
    pixels = 3 * patch_size**2
    return encoder_width * width + width + width + depth * block + 2 * width + width * pixels + pixels


@pytest.mark.parametrize(
    ("name", "encoder", "decoder", "millions"),
    [
        ("demo", (128, 4, 8), (64, 2), 0.9),
        ("vit_tiny_mae_112", (192, 12, 8), (128, 2), 5.8),
        ("vit_tiny_mae", (192, 12, 16), (512, 8), 31.2),
        ("vit_small_mae", (384, 12, 16), (512, 8), 47.4),
        ("vit_base_mae", (768, 12, 16), (512, 8), 111.7),  # He et al.: 111.9 with the positions, which they count
        ("vit_large_mae", (1024, 24, 16), (512, 8), 329.2),  # 329.5
        ("vit_huge_mae", (1280, 32, 14), (512, 8), 656.6),  # 657.1
    ],
)
def test_a_recipe_has_the_parameters_of_its_name(
    name: str, encoder: tuple[int, int, int], decoder: tuple[int, int], millions: float
) -> None:
    with torch.device("meta"):
        host = RECIPES[name]().host.build()
    width, depth, patch_size = encoder
    in_encoder = sum(p.numel() for p in host.encoder.parameters() if p.requires_grad)
    in_host = sum(p.numel() for p in host.parameters() if p.requires_grad)
    assert in_encoder == parameters_of_vit(width, depth, patch_size)
    assert in_host == in_encoder + parameters_of_decoder(*decoder, width, patch_size)
    assert in_host / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(("name", "grid"), [("demo", (8, 8)), ("vit_huge_mae", (16, 16))])
def test_grids_that_differ_from_the_paper(name: str, grid: tuple[int, int]) -> None:
    with torch.device("meta"):
        assert RECIPES[name]().host.build().grid == grid


@pytest.mark.parametrize("name", [name for name in RECIPES if "mae" in name and name != "vit_huge_mae"])
def test_the_other_ones_have_the_paper_s_grid(name: str) -> None:
    encoder = RECIPES[name]().host.encoder
    assert [side // encoder.patch_size for side in encoder.image_size] == [14, 14]


@pytest.mark.parametrize("name", list(RECIPES))
def test_names_agree(name: str) -> None:
    recipe = RECIPES[name]
    assert recipe.__name__ == name
    assert recipe().recipe == name
    summary, *rest = (recipe.__doc__ or "").splitlines()
    assert summary.endswith(".")
    command = f"evomask pretrain {name}" if name != "demo" else "evomask demo"
    assert any(f"Command: `{command}" in line for line in rest)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.count("_") == 2 and name.endswith("_mae")])
def test_the_paper_s_values(name: str) -> None:
    config = RECIPES[name]()
    assert (config.train.epochs, config.train.batch_size) == (300, 4096)
    assert (config.optim.base_lr, config.optim.betas, config.optim.weight_decay) == (1.5e-4, (0.9, 0.95), 0.05)
    assert (config.optim.warmup_epochs, config.data.crop_scale) == (40, (0.2, 1.0))
    assert config.masking == MaskingConfig(strategy="evolved", ratio=0.75, linkage="weighted", affinity="attention", depth=None)
    assert (config.host.normalise_pixels, config.host.attention_blocks) == (True, 6)


@pytest.mark.parametrize("changes", [{"mean": (0.5,)}, {"std": (0.5,) * 4}, {"mean": (), "std": ()}])
def test_mean_and_std_fit_the_channels(changes: dict) -> None:
    config = RECIPES["demo"]()
    with pytest.raises(ValueError, match=r"--data.mean and --data.std need one number for each of 3 channels"):
        replace(config, data=replace(config.data, **changes))


def test_other_channels_need_other_numbers() -> None:
    config = RECIPES["demo"]()
    host = replace(config.host, encoder=replace(config.host.encoder, in_chans=1))
    with pytest.raises(ValueError, match="one number for each of 1 channels"):
        replace(config, host=host)
    assert replace(config, host=host, data=replace(config.data, mean=(0.5,), std=(0.2,))).host == host
