"""A tokenizer that a user names: ours, and DALL-E's as transformers stores it; what it is known by; what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from evomask.models.dalle import DalleTokenizer
from evomask.models.discrete_vae import DiscreteVAEConfig
from evomask.models.tokenizers import EXPORT, load_tokenizer, save_tokenizer

PIXELS = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def save_own(folder: Path, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    model = DiscreteVAEConfig(levels=(5, 4), stride=4, width=8).build().eval()
    save_tokenizer(model, folder)
    return model


def test_our_own_comes_back_frozen(tmp_path: Path):
    model = save_own(tmp_path / "own")
    loaded, digest = load_tokenizer(str(tmp_path / "own"))
    assert loaded(PIXELS, (4, 6)).equal(model(PIXELS, (4, 6)))
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert (loaded.vocabulary, loaded.stride, loaded.in_chans) == (20, 4, 3)
    assert len(digest) == 64 and load_tokenizer(str(tmp_path / "own"), digest)[1] == digest
    assert load_tokenizer(f"hf:{tmp_path / 'own'}")[1] == digest


def test_a_run_is_known_by_what_it_leaves(tmp_path: Path):
    run = tmp_path / "run"
    save_own(run / EXPORT)
    (run / "config.json").write_text(json.dumps({"config": {}}))
    assert load_tokenizer(str(run))[1] == load_tokenizer(str(run / EXPORT))[1]


def test_another_one_in_its_place_is_noticed(tmp_path: Path):
    save_own(tmp_path / "own")
    _, digest = load_tokenizer(str(tmp_path / "own"))
    save_own(tmp_path / "own", seed=1)
    with pytest.raises(ValueError, match=r"is not the one that this run began with .*put that one back"):
        load_tokenizer(str(tmp_path / "own"), digest)


@torch.no_grad()
def test_the_one_of_dalle_sees_its_pixels_as_transformers_shows_them(tmp_path: Path):
    transformers: Any = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.FlavaImageCodebookConfig(hidden_size=8, vocab_size=64)
    codebook = transformers.FlavaImageCodebook(config)
    for parameter in codebook.parameters():  # transformers' own initial weights say the same word everywhere
        torch.nn.init.normal_(parameter, std=0.5)
    codebook.save_pretrained(tmp_path / "dalle")
    tokenizer, _ = load_tokenizer(str(tmp_path / "dalle"))
    assert isinstance(tokenizer, DalleTokenizer)
    assert (tokenizer.vocabulary, tokenizer.in_chans) == (64, 3) and tokenizer.image_size((14, 14)) == (112, 112)
    assert tokenizer.decode(torch.zeros(1, 2, 2, dtype=torch.long)) is None

    tiles = torch.randint(0, 256, (2, 3, 7, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images = tiles.repeat_interleave(16, 2).repeat_interleave(16, 3)
    processor = transformers.FlavaImageProcessor()
    shown = processor(list(images), return_codebook_pixels=True, return_image_mask=False, return_tensors="pt")
    expected = codebook.eval().get_codebook_indices(shown["codebook_pixel_values"]).flatten(1)
    assert tokenizer(images / 255, (14, 14)).equal(expected)
    assert len(expected.unique()) > 5


def test_dalle_needs_all_of_its_weights(tmp_path: Path):
    transformers: Any = pytest.importorskip("transformers")
    codebook = transformers.FlavaImageCodebook(transformers.FlavaImageCodebookConfig(hidden_size=8, vocab_size=64))
    del codebook.blocks.group_4
    codebook.save_pretrained(tmp_path / "dalle")
    with pytest.raises(ValueError, match="no whole FlavaImageCodebook: it lacks"):
        load_tokenizer(str(tmp_path / "dalle"))


def test_what_is_no_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"there is no tokenizer nowhere: name a run of `evomask train-tokenizer`, a folder"):
        load_tokenizer("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="is no tokenizer: it has no config"):
        load_tokenizer(str(tmp_path / "empty"))
    (tmp_path / "empty" / "config.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(ValueError, match="has left no tokenizer: `evomask resume"):
        load_tokenizer(str(tmp_path / "empty"))
    save_own(tmp_path / "own")
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    (tmp_path / "own" / "config.json").write_text(json.dumps(config | {"model_type": "vit"}))
    with pytest.raises(ValueError, match=r"model_type of its config.json is 'vit', none of evomask_discrete_vae, flava"):
        load_tokenizer(str(tmp_path / "own"))
    config["model"]["width"] = 16
    (tmp_path / "own" / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="no whole tokenizer of this version"):
        load_tokenizer(str(tmp_path / "own"))


def test_what_the_hub_does_not_give_is_said(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*arguments: Any, **options: Any) -> str:
        raise OSError("no route to the hub")

    monkeypatch.setattr("evomask.models.tokenizers.snapshot_download", unreachable)
    with pytest.raises(ValueError, match="hf:someone/codebook cannot be fetched: no route to the hub"):
        load_tokenizer("hf:someone/codebook")
