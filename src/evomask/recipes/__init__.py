"""One function = one run that has a name, with its command, its source and what to expect in the docstring."""

from collections.abc import Callable

from evomask.engine.pretrain import PretrainConfig
from evomask.recipes.mae import (
    demo,
    vit_base_mae,
    vit_huge_mae,
    vit_large_mae,
    vit_small_mae,
    vit_tiny_mae,
    vit_tiny_mae_112,
)
from evomask.recipes.paper import PAPER

RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        *(demo, vit_tiny_mae_112, vit_tiny_mae, vit_small_mae, vit_base_mae, vit_large_mae, vit_huge_mae),
        *(run.recipe() for run in PAPER.values()),
    )
}
"""Every recipe by its name. A further recipe is a function and a word here."""
