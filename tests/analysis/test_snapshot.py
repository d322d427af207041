import dataclasses

import pytest
import torch
from safetensors.torch import save_file

import evomask.analysis.snapshot as snapshot_module
from evomask.analysis.snapshot import (
    Snapshot,
    load_images,
    load_snapshot,
    load_snapshots,
    save_images,
    save_snapshot,
    take_snapshot,
)
from evomask.masking import EvolvedMasking, NonFiniteAffinity, RandomMasking, build_hierarchy
from evomask.models.host import Host
from evomask.models.mae import MAE, MAEConfig
from evomask.models.vit import ViTConfig

GRID = (3, 4)
TREE = ("parent", "level", "size", "children", "similarity")


@pytest.fixture
def host() -> MAE:
    torch.manual_seed(0)
    vit = ViTConfig(name="vit_tiny_patch16_224", image_size=(24, 32), patch_size=8, width=24, heads=2, depth=2, drop_path=0.5)
    return MAEConfig(encoder=vit, decoder_width=16, decoder_depth=1, decoder_heads=2).build()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randn(2, 3, 24, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.rand(2, 12, generator=torch.Generator().manual_seed(2))


def test_shows_the_mask_that_the_strategy_gives_for_the_models_attention(host, images, noise):
    masking = EvolvedMasking()
    found = take_snapshot(host, masking, images, noise, progress=0.5, epoch=3, step=40)

    host.eval()
    expected = masking(noise, GRID, 0.5, host.affinity(host.embed(images)))
    assert expected.hierarchy is not None
    assert found.masked.equal(expected.masked)
    assert found.depth is not None and found.depth.equal(1 + expected.hierarchy.height // 2)
    assert found.height.equal(expected.hierarchy.height)
    assert (found.grid, found.epoch, found.step, found.progress) == (GRID, 3, 40, 0.5)


def test_visible_patches_of_the_reconstruction_are_the_input_and_hidden_ones_are_not(host, images, noise):
    found = take_snapshot(host, EvolvedMasking(), images, noise, progress=0.5, epoch=0, step=0)

    assert found.reconstruction is not None and found.reconstruction.dtype == torch.float16
    error_BN = (host.patchify(found.reconstruction.float()) - host.patchify(images)).abs().amax(dim=-1)
    assert error_BN[~found.masked].max() < 0.002
    assert error_BN[found.masked].min() > 0.1


def test_static_masks_have_no_depth_and_the_tree_of_the_models_attention(host, images, noise):
    found = take_snapshot(host, RandomMasking(), images, noise, progress=0.5, epoch=0, step=0)

    host.eval()
    expected = build_hierarchy(host.affinity(host.embed(images)))
    assert found.depth is None
    assert all(getattr(found.hierarchy, name).equal(getattr(expected, name)) for name in TREE)
    assert found.masked.equal(RandomMasking()(noise, GRID).masked)


def test_a_host_that_restores_no_pixels_has_no_reconstruction(images, noise):
    class TokenHost(Host):
        grid = GRID

        def embed(self, images):
            return images

        def affinity(self, tokens):
            return torch.rand(len(tokens), 12, 12, generator=torch.Generator().manual_seed(0))

        def forward(self, images, tokens, mask):
            raise NotImplementedError

        def compile(self, **options):
            raise NotImplementedError

        def for_transformers(self, mask_ratio):
            raise NotImplementedError

    assert take_snapshot(TokenHost(), EvolvedMasking(), images, noise, 0.5, 0, 0).reconstruction is None


def test_leaves_the_host_and_the_random_state_as_they_were(host, images, noise):
    host.train()
    host.encoder.blocks[0].eval()
    modes = [module.training for module in host.modules()]
    weights = [parameter.clone() for parameter in host.parameters()]
    state = torch.get_rng_state()

    take_snapshot(host, EvolvedMasking(), images, noise, progress=0.5, epoch=0, step=0)

    assert [module.training for module in host.modules()] == modes
    assert torch.get_rng_state().equal(state)
    assert all(now.equal(before) for now, before in zip(host.parameters(), weights, strict=True))
    assert all(parameter.grad is None for parameter in host.parameters())


def test_restores_the_training_mode_after_an_error(host, images, noise):
    host.train()
    torch.nn.init.constant_(host.encoder.blocks[0].attn.qkv.weight, float("nan"))
    with pytest.raises(NonFiniteAffinity):
        take_snapshot(host, EvolvedMasking(), images, noise, progress=0.5, epoch=0, step=0)
    assert all(module.training for module in host.modules())


def test_stochastic_depth_is_off(host, images, noise):
    host.train()
    first, second = (take_snapshot(host, EvolvedMasking(), images, noise, 0.5, 0, 0) for _ in range(2))
    assert_equal(first, second)


def test_comes_back_from_a_file_as_it_was(tmp_path, host, images, noise):
    for masking in (EvolvedMasking(), RandomMasking()):
        saved = take_snapshot(host, masking, images, noise, progress=0.5, epoch=3, step=40)
        save_snapshot(saved, tmp_path / "run" / "snapshots" / "epoch_0003.safetensors")
        assert_equal(load_snapshot(tmp_path / "run" / "snapshots" / "epoch_0003.safetensors"), saved)


def test_a_save_that_is_cut_short_leaves_the_old_file(tmp_path, monkeypatch, host, images, noise):
    path = tmp_path / "epoch_0000.safetensors"
    saved = take_snapshot(host, EvolvedMasking(), images, noise, progress=0.5, epoch=3, step=40)
    save_snapshot(saved, path)

    def half_written(tensors, temporary, metadata):
        temporary.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(snapshot_module, "save_file", half_written)
    with pytest.raises(OSError, match="no space left"):
        save_snapshot(dataclasses.replace(saved, step=80), path)
    (found,) = load_snapshots(tmp_path, 9)
    assert found.step == 40


def test_stages_are_listed_in_the_order_of_training(tmp_path, host, images, noise):
    stage = take_snapshot(host, RandomMasking(), images, noise, progress=0.0, epoch=0, step=0)
    for epoch in (10_000, 9_999, 0):
        save_snapshot(dataclasses.replace(stage, epoch=epoch, step=2 * epoch), tmp_path / f"epoch_{epoch:04d}.safetensors")
    save_images(tmp_path / "images.safetensors", torch.zeros(2, 3, 24, 32, dtype=torch.uint8), ["a", "b"])

    assert [found.epoch for found in load_snapshots(tmp_path, 9)] == [0, 9_999, 10_000]
    assert [found.epoch for found in load_snapshots(tmp_path, 2)] == [0, 10_000]
    assert load_snapshots(tmp_path / "missing", 9) == []


def test_images_come_back_with_their_names(tmp_path):
    images = torch.arange(2 * 3 * 4, dtype=torch.uint8).reshape(2, 1, 3, 4).transpose(2, 3)
    save_images(tmp_path / "images.safetensors", images, ["a/Ünï.png", "</script>"])
    found, names = load_images(tmp_path / "images.safetensors")
    assert found.equal(images) and found.dtype == torch.uint8
    assert names == ["a/Ünï.png", "</script>"]


def test_other_files_are_refused_by_name(tmp_path):
    text = tmp_path / "notes.safetensors"
    text.write_text("this is no snapshot")
    with pytest.raises(ValueError, match=r"notes\.safetensors cannot be read as a snapshot"):
        load_snapshot(text)

    weights = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(1)}, weights)
    with pytest.raises(ValueError, match=r"weights\.safetensors is no snapshot: it holds no parent"):
        load_snapshot(weights)
    with pytest.raises(ValueError, match=r"weights\.safetensors is no snapshot: it holds no images"):
        load_images(weights)


def assert_equal(found: Snapshot, expected: Snapshot) -> None:
    for name in ("grid", "epoch", "step", "progress"):
        assert getattr(found, name) == getattr(expected, name)
    pairs = [(getattr(found, name), getattr(expected, name)) for name in ("masked", "depth", "reconstruction")]
    pairs += [(getattr(found.hierarchy, name), getattr(expected.hierarchy, name)) for name in TREE]
    for one, other in pairs:
        assert one is other is None or (one.dtype == other.dtype and one.equal(other))
