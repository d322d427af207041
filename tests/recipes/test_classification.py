import pytest

from evomask.recipes import EVALUATIONS
from evomask.tasks import TASKS, task_of


@pytest.mark.parametrize("recipe", EVALUATIONS.values(), ids=EVALUATIONS)
def test_an_evaluation_with_a_name_is_of_a_task_and_says_how_it_is_run(recipe) -> None:
    assert task_of(recipe()) in TASKS
    assert f"Command: `evomask evaluate {recipe.__name__} " in recipe.__doc__


def test_settings_of_a_large_vit_are_those_published() -> None:
    config = EVALUATIONS["finetune_vit_large"]()
    assert (config.loop.epochs, config.loop.batch_size) == (50, 1024)
    assert (config.optim.base_lr, config.layer_decay, config.drop_path) == (1e-3, 0.75, 0.2)
    assert (config.mixup, config.cutmix, config.random_erasing) == (0.8, 1.0, 0.25)
