"""One function = one run that has a name, with its command, its source and what to expect in the docstring."""

from collections.abc import Callable
from typing import Any

from evomask.engine.pretrain import PretrainConfig
from evomask.recipes.beit import vit_base_beit, vit_small_beit, vit_tiny_beit, vit_tiny_beit_112
from evomask.recipes.classification import finetune_few_labels, finetune_vit_large
from evomask.recipes.detection import detection_1x, detection_3x, detection_small
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
from evomask.recipes.retrieval import retrieval_landmarks, retrieval_small
from evomask.recipes.segmentation import segmentation_ade20k, segmentation_beit, segmentation_small
from evomask.recipes.simmim import (
    swin_base_simmim,
    swin_tiny_simmim,
    swin_tiny_simmim_112,
    vit_base_simmim,
    vit_small_simmim,
    vit_tiny_simmim,
    vit_tiny_simmim_112,
)
from evomask.recipes.visual_language import (
    counting_small,
    counting_vicuna,
    counting_vicuna_joint,
    identification_small,
    identification_vicuna,
    identification_vicuna_joint,
    vqa_easy,
    vqa_vicuna,
    vqa_vicuna_joint,
)

RECIPES: dict[str, Callable[[], PretrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        *(demo, vit_tiny_mae_112, vit_tiny_mae, vit_small_mae, vit_base_mae, vit_large_mae, vit_huge_mae),
        *(vit_tiny_beit_112, vit_tiny_beit, vit_small_beit, vit_base_beit),
        *(vit_tiny_simmim_112, vit_tiny_simmim, vit_small_simmim, vit_base_simmim),
        *(swin_tiny_simmim_112, swin_tiny_simmim, swin_base_simmim),
        *(run.recipe() for run in PAPER.values()),
    )
}
"""Every recipe by its name. A further recipe is a function and a word here."""

EVALUATIONS: dict[str, Callable[[], Any]] = {
    recipe.__name__: recipe
    for recipe in (
        *(finetune_vit_large, finetune_few_labels),
        *(segmentation_ade20k, segmentation_beit, segmentation_small),
        *(detection_1x, detection_3x, detection_small),
        *(retrieval_landmarks, retrieval_small),
        *(vqa_easy, counting_small, identification_small),
        *(vqa_vicuna, vqa_vicuna_joint, counting_vicuna, counting_vicuna_joint),
        *(identification_vicuna, identification_vicuna_joint),
    )
}
"""Every evaluation that has a name of its own beside its task's, whose options it returns. A further one is a function and a
word here.
"""
