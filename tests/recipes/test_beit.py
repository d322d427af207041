"""The recipes of BEiT are what their names say, with the published optimisation."""

import pytest

from evomask.masking import BlockMasking
from evomask.recipes import RECIPES


@pytest.mark.parametrize(
    ("name", "millions"),
    [("vit_tiny_beit_112", 7.0), ("vit_tiny_beit", 7.1), ("vit_small_beit", 24.8), ("vit_base_beit", 92.0)],
)
def test_a_recipe_has_the_size_and_the_grid_of_its_name(name: str, millions: float) -> None:
    """With DALL-E's 8,192 tokens."""
    host = RECIPES[name]().host.build()
    assert host.grid == (14, 14)
    assert sum(p.numel() for p in host.parameters()) / 1e6 == pytest.approx(millions, abs=0.06)


def test_the_published_optimisation() -> None:
    """Of microsoft/unilm, at a batch of 2,048."""
    for name in ("vit_tiny_beit", "vit_small_beit", "vit_base_beit"):
        config = RECIPES[name]()
        assert (config.optim.base_lr * 8, config.optim.min_lr * 8) == (1.5e-3, 1e-5)
        assert (config.optim.betas, config.optim.weight_decay, config.optim.clip_grad) == ((0.9, 0.98), 0.05, 3.0)
        assert (config.optim.warmup_epochs, config.train.batch_size, config.data.crop_scale) == (10, 2048, (0.08, 1.0))
        assert config.masking.strategy == "evolved" and int(196 * config.masking.ratio) == 75
        encoder = config.host.encoder
        assert (encoder.drop_path, encoder.layer_scale, encoder.position_bias) == (0.1, 0.1, "shared")


def test_the_masks_of_beit_itself() -> None:
    config = RECIPES["vit_small_beit_block_200"]()
    assert config.masking.build() == BlockMasking(ratio=0.383, min_block=16)
    assert config.train.epochs == 200
    assert "--host.tokenizer hf:facebook/flava-image-codebook --out RUN" in (RECIPES["vit_small_beit_block_200"].__doc__ or "")
