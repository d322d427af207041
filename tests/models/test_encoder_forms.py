"""The forms of what a user names: runs, folders, files, models of hubs, and what is wrong about them."""

import json
import logging
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import timm
import torch
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import load_file, save_file

from evomask.models import encoders
from evomask.models.encoders import Encoder, load_encoder
from evomask.models.export import export_timm, export_transformers
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig, build_vit

MEAN, STD = (0.4, 0.5), (0.1, 0.2)
CONFIG = ViTConfig(
    name="vit_tiny_patch16_224", image_size=(24, 40), patch_size=8, in_chans=2, width=48, depth=2, heads=3, registers=2
)


@pytest.fixture
def vit():
    torch.manual_seed(0)
    return build_vit(CONFIG)


@pytest.fixture
def images():
    return torch.randn(3, 2, 24, 40, generator=torch.Generator().manual_seed(0))


def make_run(run: Path) -> None:
    """What is there of a run from its first step on."""
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"command": "evomask pretrain x", "config": {"recipe": "x"}}))


@pytest.mark.parametrize("form", ["{folder}", "timm:local-dir:{folder}", "run"])
def test_exported_weights_are_loaded(tmp_path, vit, images, form):
    make_run(tmp_path / "run")
    folder = tmp_path / "run" / "export" / "timm"
    export_timm(Encoder.of(vit, MEAN, STD, "mine"), folder)
    spec = str(tmp_path / "run") if form == "run" else form.format(folder=folder)
    encoder = load_encoder(spec)
    assert (encoder.mean, encoder.std, encoder.name) == (MEAN, STD, spec)
    assert (encoder.image_size, encoder.in_chans) == ((24, 40), 2)
    assert not encoder.model.training
    with torch.no_grad():
        assert torch.equal(encoder.model(images), vit.eval()(images))


def test_run_without_weights_says_what_to_do(tmp_path):
    make_run(tmp_path / "run")
    with pytest.raises(ValueError, match=r"run has no exported weights yet: `evomask export .*run --to timm` writes them"):
        load_encoder(str(tmp_path / "run"))


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"model": "vit"}'])
def test_anything_else_is_answered_with_the_forms(tmp_path, content):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        ValueError, match=r"no encoder '.*': name a run's folder, .*, a file of weights .*, timm:NAME .* or hf:NAME"
    ):
        load_encoder(str(tmp_path))


@pytest.mark.parametrize("spec", ["", "timm:", "hf:", "nowhere", "weights", "nowhere?image_size=32"])
def test_what_is_not_there_is_answered_with_the_forms(tmp_path, monkeypatch, spec):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"no encoder '"):
        load_encoder(spec)


@pytest.mark.parametrize("query", ["heads=4", "activation=gelu"])
def test_what_knows_its_heads_is_not_told_them(tmp_path, vit, query):
    export_timm(Encoder.of(vit, MEAN, STD, "mine"), tmp_path / "export")
    with pytest.raises(
        ValueError, match=rf"export says itself what its {query.split('=')[0]} are: leave that to files of weights"
    ):
        load_encoder(f"{tmp_path / 'export'}?{query}")


def test_mean_and_std_may_be_named_of_anything(tmp_path, vit):
    export_timm(Encoder.of(vit, MEAN, STD, "mine"), tmp_path / "export")
    encoder = load_encoder(f"{tmp_path / 'export'}?mean=0.3&std=0.6,0.7")
    assert (encoder.mean, encoder.std) == ((0.3, 0.3), (0.6, 0.7))


def test_names_unknown_to_timm(tmp_path):
    with pytest.raises(ValueError, match=r"timm:vit_nano cannot be loaded by timm: Unknown model \(vit_nano\)"):
        load_encoder("timm:vit_nano")
    with pytest.raises(ValueError, match="cannot be loaded by timm: Config file not found"):
        load_encoder(f"timm:local-dir:{tmp_path}")


def test_damaged_weights_are_one_clear_line(tmp_path, vit):
    export_timm(Encoder.of(vit, MEAN, STD, "mine"), tmp_path / "export")
    weights = tmp_path / "export" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match="export cannot be loaded by timm: ") as caught:
        load_encoder(str(tmp_path / "export"))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [(ConnectionError("no network\nand a long story"), "no network and a long story"), (OSError(), "OSError")],
)
def test_network_errors_are_one_clear_line(monkeypatch, error, line):
    def offline(*_, **__):
        raise error

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=f"^timm:vit_tiny_patch16_224 cannot be loaded by timm: {line}$"):
        load_encoder("timm:vit_tiny_patch16_224")


def test_pretrained_weights_of_timm_by_name(monkeypatch):
    vit = build_vit(ViTConfig(name="vit_tiny_patch16_224", depth=1))
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda *name, **options: asked.append((name, options)) or vit)
    encoder = load_encoder("timm:vit_tiny_patch16_224.augreg_in21k")
    assert asked == [(("vit_tiny_patch16_224.augreg_in21k",), {"pretrained": True})]
    assert encoder.model is vit
    assert encoder.mean == encoder.std == (0.5, 0.5, 0.5)  # as timm says that these weights were trained


@pytest.mark.parametrize("form", ["{folder}", "hf:{folder}", "{folder}/model.safetensors"])
def test_exports_to_transformers_are_loaded_without_transformers(tmp_path, monkeypatch, images, form):
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it now fails
    config = replace(CONFIG, image_size=(40, 40), registers=0)
    host = MAEConfig(encoder=config, decoder_width=16, decoder_depth=1, decoder_heads=2).build().eval()
    export_transformers(host, tmp_path / "export", MEAN, STD)
    encoder = load_encoder(form.format(folder=tmp_path / "export"))
    assert (encoder.mean, encoder.std, encoder.image_size) == (MEAN, STD, (40, 40))
    images = torch.randn(3, 2, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(encoder.patch_tokens(images), host.encoder.forward_features(images)[:, 1:])


def test_what_was_loaded_is_logged(tmp_path, caplog, vit):
    export_timm(Encoder.of(vit, MEAN, STD, "mine"), tmp_path / "export")
    with caplog.at_level(logging.INFO, "evomask"):
        load_encoder(str(tmp_path / "export"))
    loaded = f"{tmp_path / 'export'}: loaded all {len(vit.state_dict())} tensors, by timm"
    assert caplog.messages == [f"{loaded}; images of 24 x 40 px, mean 0.4 0.5, std 0.1 0.2"]


def test_exports_that_do_not_fit_are_refused(tmp_path, vit):
    export_timm(Encoder.of(vit, MEAN, STD, "mine"), tmp_path / "export")
    weights = vit.state_dict()
    del weights["blocks.0.norm1.bias"]
    save_file(weights, tmp_path / "export" / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"export cannot be loaded by timm: .* Missing key\(s\) .*blocks\.0\.norm1\.bias"
    ) as caught:
        load_encoder(str(tmp_path / "export"))
    assert len(str(caught.value).splitlines()) == 1


def test_repositories_of_the_hub(tmp_path, monkeypatch, images):
    """Config first; then safetensors, or pickles where there are none; a repository of timm's goes to timm."""
    config = replace(CONFIG, image_size=(40, 40), registers=0)
    host = MAEConfig(encoder=config, decoder_width=16, decoder_depth=1, decoder_heads=2).build().eval()
    export_transformers(host, tmp_path / "hub", MEAN, STD)
    asked = []

    def snapshot_download(name, allow_patterns):
        """Files appear only when they are asked for."""
        asked.append(allow_patterns[0])
        local = tmp_path / "cache"
        local.mkdir(exist_ok=True)
        for path in (tmp_path / "hub").iterdir():
            if any(path.match(pattern) for pattern in allow_patterns):
                shutil.copy(path, local)
        return str(local)

    monkeypatch.setattr(encoders, "snapshot_download", snapshot_download)
    encoder = load_encoder("hf:facebook/vit-mae-tiny")
    images = torch.randn(3, 2, 40, 40)
    with torch.no_grad():
        torch.testing.assert_close(encoder.patch_tokens(images), host.encoder.forward_features(images)[:, 1:])
    assert (asked, encoder.name) == (["config.json", "model.safetensors"], "hf:facebook/vit-mae-tiny")

    shutil.rmtree(tmp_path / "cache")
    torch.save(load_file(tmp_path / "hub" / "model.safetensors"), tmp_path / "hub" / "pytorch_model.bin")
    (tmp_path / "hub" / "model.safetensors").unlink()
    encoder = load_encoder("hf:facebook/vit-mae-tiny")
    assert asked[2:] == ["config.json", "model.safetensors", "pytorch_model.bin"]
    with torch.no_grad():
        torch.testing.assert_close(encoder.patch_tokens(images), host.encoder.forward_features(images)[:, 1:])

    (tmp_path / "hub" / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    vit = build_vit(ViTConfig(name="vit_tiny_patch16_224", depth=1))
    names = []
    monkeypatch.setattr(timm, "create_model", lambda name, **_: names.append(name) or vit)
    assert load_encoder("hf:timm/vit_tiny").model is vit
    assert names == ["hf-hub:timm/vit_tiny"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ConnectionError("no network\nand a long\nstory"), "no network and a long"),
        (
            RepositoryNotFoundError("404 Client Error\n\nRepository Not Found", response=Mock()),
            "404 Client Error Repository Not Found",
        ),
        (OSError(), "OSError"),
    ],
)
def test_failures_of_the_hub_are_one_clear_line(monkeypatch, error, line):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(encoders, "snapshot_download", fail)
    with pytest.raises(ValueError, match=f"^hf:some/vit cannot be fetched: {line}$"):
        load_encoder("hf:some/vit")
