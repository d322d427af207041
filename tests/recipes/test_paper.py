"""Every pretraining of Tables I to VI and VIII has a recipe that is what its name says, and that names the paper's figure."""

import re

import pytest

from evomask.masking import EvolvedMasking, GridMasking, RandomMasking
from evomask.recipes import RECIPES
from evomask.recipes.paper import PAPER, UNITS

TABLES = {
    "I": [
        f"vit_small_mae_{masks}_{epochs}" for masks in ("grid", "random", "block", "evolved") for epochs in (100, 200, 400, 800)
    ],
    "II": [f"vit_small_mae_{masks}{ratio}_300" for masks in ("random", "evolved") for ratio in ("_ratio25", "_ratio50", "")],
    "III": [f"vit_small_mae_{masks}_300" for masks in ("large_block", "deep", "grid_like", "shallow")],
    "IV": [f"vit_small_mae_{masks}_300" for masks in ("shallow", "deep", "evolved")],
    "V": [f"vit_small_mae_evolved_{epochs}" for epochs in (100, 200, 400, 800, 1600, 2400)],
    "VI": [f"vit_base_mae_{run}" for run in ("random_300", "evolved_200", "evolved_300")],
    "VIII": [
        *(f"vit_small_beit_{masks}_200" for masks in ("block", "evolved")),
        *(f"vit_small_simmim_{masks}_200" for masks in ("cells", "evolved")),
    ],
}

PUBLISHED = {
    "mae": (0.75, (1.5e-4, (0.9, 0.95), 4096)),
    "beit": (0.383, (1.875e-4, (0.9, 0.98), 2048)),
    "simmim": (0.6, (0.5e-4, (0.9, 0.999), 2048)),
}
"""Of each host: mask ratio, and the rate at a batch of 256, betas, batch."""


@pytest.mark.parametrize("table", TABLES)
def test_every_row_of_a_table_has_a_recipe(table: str) -> None:
    assert {name for name, run in PAPER.items() if table in ", ".join(run.reported).split(", ")} == set(TABLES[table])


@pytest.mark.parametrize("name", PAPER)
def test_a_recipe_is_what_its_name_says(name: str) -> None:
    run, config = PAPER[name], RECIPES[name]()
    assert config.recipe == RECIPES[name].__name__ == name
    assert f"_{config.train.epochs}" == re.findall(r"_\d+$", name)[0]
    ratio = re.search(r"_ratio(\d+)_", name)
    host = name.split("_")[2]
    usual, optimisation = PUBLISHED[host]
    assert config.masking.ratio == (int(ratio[1]) / 100 if ratio else usual)
    size = "base" if "vit_base" in name else "small"
    if host == "beit":
        assert (size, config.host.encoder.width, config.host.encoder.heads) == ("small", 384, 6)
    else:
        assert config.host.encoder.name == f"vit_{size}_patch16_224"
    assert (config.optim.base_lr, config.optim.betas, config.train.batch_size) == optimisation
    text = RECIPES[name].__doc__ or ""
    assert f"evomask pretrain {name} " in text
    for row in run.reported.values():
        for task, figure in row.items():
            assert f"{figure:g}{UNITS[task]} (Table" in text


def test_masks_of_the_tables() -> None:
    masks = {name: RECIPES[f"vit_small_mae_{name}_300"]().masking.build() for name in ("shallow", "deep", "evolved", "random")}
    assert masks["shallow"] == EvolvedMasking(depth=0.2) and masks["deep"] == EvolvedMasking(depth=0.8)
    assert masks["evolved"] == EvolvedMasking() and masks["random"] == RandomMasking()
    assert RECIPES["vit_small_mae_grid_100"]().masking.build() == GridMasking()
    assert RECIPES["vit_small_mae_large_block_300"]().masking.min_block == 49


def test_figures_by_hand() -> None:
    """One of each table, read off the paper again."""
    assert PAPER["vit_small_mae_block_400"].reported["I"] == {"finetune": 79.29, "segmentation": 40.67, "detection": 35.08}
    assert PAPER["vit_small_mae_evolved_ratio25_300"].reported["II"] == {"finetune": 78.96, "segmentation": 38.14}
    assert PAPER["vit_small_mae_deep_300"].reported["IV"] == {"retrieval": 55.07}
    assert PAPER["vit_small_mae_evolved_2400"].reported["V"] == {"finetune": 81.55, "segmentation": 42.94, "detection": 41.08}
    assert PAPER["vit_base_mae_evolved_300"].reported["VI"] == {"linear-probe": 66.1, "finetune": 84.9}
    assert PAPER["vit_small_simmim_evolved_200"].reported["VIII"] == {"finetune": 79.21, "segmentation": 39.45}
