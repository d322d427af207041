import io

import numpy as np
import pytest
import torch
from PIL import Image

import evomask.figures.explorer as explorer_module
from evomask.figures.explorer import Explorer, MaskChoice, Model, TreeChoice
from evomask.figures.paint import enlarged, paint_mask
from evomask.figures.reconstruction import denormalise
from evomask.figures.show import image_noise
from evomask.masking import EvolvedMasking
from evomask.models.encoders import Encoder

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
CHOICE = TreeChoice("a", blocks=2, affinity="profile", linkage="average")


@pytest.fixture
def asked(host) -> list[str]:
    """What the model has been asked for."""
    return []


@pytest.fixture
def explorer(host, asked) -> Explorer:
    def load(spec: str) -> Model:
        asked.append(f"load {spec}")
        if spec == "bad":
            raise ValueError("no encoder 'bad'")
        return Model(Encoder.of(host.encoder, MEAN, STD, spec), None if spec == "bare" else host)

    handle = host.encoder.patch_embed.register_forward_hook(lambda *_: asked.append("embed"))
    yield Explorer(load)
    handle.remove()


@pytest.fixture
def content(originals) -> bytes:
    file = io.BytesIO()
    Image.fromarray(originals[0].permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def test_the_mask_is_that_of_the_strategy(explorer, content, host, images, originals):
    image = explorer.add(content)
    painted, words = explorer.masked(image, CHOICE, MaskChoice(depth=0.4, ratio=0.5, seed=3))
    attention = Encoder.of(host.encoder, MEAN, STD, "a").tap.by_block(images[:1], 2).mean(dim=1)
    masking = EvolvedMasking(0.5, linkage="average", affinity="profile")
    mask = masking(image_noise(1, (3, 4), 3), (3, 4), 0.4, attention)
    picture = enlarged(originals[0].permute(1, 2, 0).numpy())
    assert np.array_equal(painted, paint_mask(picture, mask.masked[0].view(3, 4).numpy()))
    assert words == "6 of 12 patches hidden"
    restored, _ = explorer.restored(image, CHOICE, MaskChoice(depth=0.4, ratio=0.5, seed=3))
    expected = denormalise(host.reconstruct(images[:1], mask), MEAN, STD)[0].permute(1, 2, 0).numpy()
    assert np.abs(restored.astype(int) - enlarged(expected)).max() <= 1


def test_a_change_of_depth_asks_no_encoder_and_builds_no_tree(explorer, content, asked, monkeypatch):
    built = []
    build = explorer_module.build_hierarchy
    monkeypatch.setattr(explorer_module, "build_hierarchy", lambda *given: built.append(given) or build(*given))
    image = explorer.add(content)
    for depth in (0.0, 0.3, 0.6, 0.9):
        explorer.partition(image, CHOICE, depth)
        explorer.masked(image, CHOICE, MaskChoice(depth=depth))
    assert asked == ["load a", "embed"] and len(built) == 1
    explorer.partition(image, TreeChoice("a", blocks=1), 0.5)  # another tree of the same attention
    assert asked == ["load a", "embed"] and len(built) == 2


def test_depth_makes_groups_from_single_patches_on(explorer, content):
    image = explorer.add(content)
    assert "12 groups, the largest 8% of the image" in explorer.partition(image, CHOICE, 0.0)[1]
    words = [explorer.partition(image, CHOICE, depth)[1] for depth in (0.3, 0.6, 0.95)]
    counts = [int(each.split(": ")[1].split(" ")[0]) for each in words]
    assert 12 > counts[0] >= counts[1] >= counts[2] >= 1


def test_attention_is_that_of_the_patch_at_a_place(explorer, content, host, images):
    image = explorer.add(content)
    attention = Encoder.of(host.encoder, MEAN, STD, "a").tap.by_block(images[:1], 2).mean(dim=1)[0]
    for place, patch, words in (((0, 0), 0, "row 1, column 1"), ((0.99, 0.5), 10, "row 3, column 3"), ((1, 1), 11, "row 3")):
        assert explorer.attention(image, CHOICE, place)[2].startswith(words)
        assert explorer.attention(image, CHOICE, place)[2].endswith(f"gives up to {attention[patch].max():.1%} to a patch")


def test_what_cannot_be_done_is_said(explorer, content):
    with pytest.raises(ValueError, match="no image that can be read"):
        explorer.add(b"buy milk")
    image = explorer.add(content)
    assert explorer.add(content) == image
    assert explorer.restored(image, TreeChoice("bare"), MaskChoice()) == (
        None,
        "an encoder alone restores nothing: name a run",
    )
    with pytest.raises(ValueError, match="no encoder 'bad'"):
        explorer.partition(image, TreeChoice("bad"), 0.5)
    with pytest.raises(ValueError, match="drop it again"):
        explorer.partition("gone", CHOICE, 0.5)
    assert torch.is_grad_enabled()
