"""The recipes of SimMIM are what their names say, with the published optimisation."""

import pytest

from evomask.masking import CellMasking
from evomask.recipes import RECIPES

VIT, SWIN = ("vit_tiny_simmim", "vit_small_simmim", "vit_base_simmim"), ("swin_tiny_simmim", "swin_base_simmim")


@pytest.mark.parametrize(
    ("name", "grid", "millions"),
    [
        ("vit_tiny_simmim_112", (14, 14), 5.5),
        ("vit_tiny_simmim", (14, 14), 5.7),
        ("vit_small_simmim", (14, 14), 22.0),
        ("vit_base_simmim", (14, 14), 86.4),
        ("swin_tiny_simmim_112", (14, 14), 3.2),
        ("swin_tiny_simmim", (12, 12), 29.9),
        ("swin_base_simmim", (12, 12), 89.9),
    ],
)
def test_a_recipe_has_the_size_and_the_grid_of_its_name(name: str, grid: tuple[int, int], millions: float) -> None:
    host = RECIPES[name]().host.build()
    assert host.grid == grid
    assert sum(p.numel() for p in host.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


@pytest.mark.parametrize(("names", "rate", "least"), [(VIT, 1e-4, 5e-6), (SWIN, 2e-4, 1e-5)])
def test_the_published_optimisation(names: tuple[str, ...], rate: float, least: float) -> None:
    """Of microsoft/SimMIM, whose rates are for a batch of 512."""
    for name in names:
        config = RECIPES[name]()
        assert (config.optim.base_lr * 2, config.optim.min_lr * 2) == (rate, least)
        assert (config.optim.betas, config.optim.weight_decay, config.optim.clip_grad) == ((0.9, 0.999), 0.05, 5.0)
        assert (config.optim.warmup_epochs, config.train.batch_size, config.data.crop_scale) == (10, 2048, (0.67, 1.0))
        assert (config.masking.strategy, config.masking.ratio) == ("evolved", 0.6)
        assert config.host.encoder.drop_path == (0.1 if name in VIT else 0.0)


def test_the_masks_of_simmim_itself() -> None:
    config = RECIPES["vit_small_simmim_cells_200"]()
    assert config.masking.build() == CellMasking(ratio=0.6, cell=2)
    assert config.train.epochs == 200
