"""Pictures of a run show the masks that it has learnt with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evomask.recipes import show
from evomask.recipes.launch import pretrain


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    small = {
        **{"host__encoder__image_size": (32, 32), "host__encoder__width": 32, "host__encoder__depth": 2},
        **{"host__encoder__heads": 2, "host__decoder_width": 16, "host__decoder_depth": 1, "host__decoder_heads": 2},
        **{"data__scenes": 16, "data__workers": 0, "train__epochs": 1, "train__batch_size": 8, "train__device": "cpu"},
        **{"masking__ratio": 0.5, "masking__affinity": "profile", "monitor__every": 0},
    }
    return pretrain("demo", tmp_path_factory.mktemp("runs") / "run", **small)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_noise((40, 40), 60).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_reconstruction_hides_as_many_patches_as_training_did(run: Path, photo: Path) -> None:
    axes = show.draw_picture("reconstruction", [str(run)], [photo]).axes
    for masked in (axes[1], axes[3]):
        opacity = np.asarray(masked.images[-1].get_array())[..., 3]
        assert (opacity > 0).sum() == 8, "half of 4 x 4"


def test_difficulty_is_of_the_runs_own_trees(run: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(show, "loss_by_depth", lambda *arguments: asked.append(arguments[-1]) or np.ones((11, 1)))
    monkeypatch.setattr(show, "mask_difficulty", lambda losses, depths: None)
    show.draw_picture("difficulty", [str(run)], [photo])
    assert (asked[0].ratio, asked[0].affinity, asked[0].depth) == (0.5, "profile", None)
