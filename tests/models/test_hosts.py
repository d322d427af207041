"""What holds for every host of the table and every strategy: rectangular masks, a finite loss, a way back from a file."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomask.engine.pretrain import MaskingConfig
from evomask.engine.run import from_dict, to_dict
from evomask.masking import STRATEGIES
from evomask.models.beit import BEiTConfig
from evomask.models.beit_encoder import BEiTEncoderConfig
from evomask.models.discrete_vae import DiscreteVAEConfig
from evomask.models.host import Host
from evomask.models.hosts import HOSTS, HostConfig
from evomask.models.mae import MAEConfig
from evomask.models.simmim import SimMIMConfig, SwinSimMIMConfig
from evomask.models.swin import SwinConfig
from evomask.models.taps import attention_tap
from evomask.models.vit import ViTConfig

VIT = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=4, width=24, depth=2, heads=2)
SWIN = SwinConfig(image_size=(32, 32), width=8, depths=(2, 2), heads=(1, 2), window=4)
BEIT = BEiTEncoderConfig(image_size=(32, 32), patch_size=4, width=24, depth=2, heads=2)
SMALL: dict[str, Any] = {
    "mae": MAEConfig(encoder=VIT, decoder_width=16, decoder_depth=1, decoder_heads=2),
    "simmim": SimMIMConfig(encoder=VIT),
    "swin_simmim": SwinSimMIMConfig(encoder=SWIN),
    "beit": BEiTConfig(encoder=BEIT, vocabulary=20),
}
"""One small host of each kind, with a grid of 8 x 8."""


@cache
def host_of(kind: str) -> Host:
    host = SMALL[kind].build().train()
    if kind == "beit":  # which a run's configuration names by its folder
        host.__dict__["tokenizer"] = DiscreteVAEConfig(levels=(5, 4), stride=4, width=8).build().eval().requires_grad_(False)
    return host


def test_every_host_of_the_table_is_tried():
    assert SMALL.keys() == HOSTS.keys()
    assert all(HOSTS[kind] is type(config) and config.kind == kind for kind, config in SMALL.items())


@settings(max_examples=60)
@given(
    kind=st.sampled_from(list(SMALL)),
    strategy=st.sampled_from(list(STRATEGIES)),
    ratio=st.sampled_from([0.25, 0.6, 0.75]),
    progress=st.floats(0, 0.99),
    images=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_any_host_with_any_masks(kind: str, strategy: str, ratio: float, progress: float, images: int, seed: int):
    host = host_of(kind)
    generator = torch.Generator().manual_seed(seed)
    batch, noise = torch.randn(images, 3, 32, 32, generator=generator), torch.rand(images, 64, generator=generator)
    masking = MaskingConfig(strategy=strategy, ratio=ratio, min_block=4).build()
    tokens = host.embed(batch)
    affinity = host.affinity(tokens.detach()) if masking.needs_affinity else None
    mask = masking(noise, grid=host.grid, progress=progress, affinity=affinity)
    assert (mask.masked.sum(dim=1) == mask.count).all()
    if strategy != "cells":
        assert mask.count == int(64 * ratio)

    host.zero_grad()
    output = host(batch, tokens, mask)
    assert output.prediction.shape[:2] == (images, mask.count)
    assert output.loss.isfinite() and output.loss.ndim == 0
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in host.parameters() if p.requires_grad)
    restored = host.reconstruct(batch, mask)
    assert restored is None or restored.shape == batch.shape


@pytest.mark.parametrize("kind", SMALL)
def test_an_affinity_is_a_relation_of_all_places(kind):
    host = host_of(kind).eval()
    affinity = host.affinity(host.embed(torch.randn(2, 3, 32, 32)))
    assert affinity.shape == (2, 64, 64) and affinity.dtype == torch.float32 and not affinity.requires_grad
    assert (affinity >= 0).all() and (affinity.sum(dim=-1) > 0).all()
    assert affinity.std() > 0


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("kind", SMALL)
def test_an_affinity_is_the_mean_over_as_many_first_blocks_as_are_configured(kind, blocks):
    host = replace(SMALL[kind], attention_blocks=blocks).build().eval()
    images = torch.randn(2, 3, 32, 32)
    by_block = attention_tap(host.encoder).by_block(images, 2)
    assert not torch.allclose(by_block[:, 0], by_block[:, 1], rtol=0.001)
    torch.testing.assert_close(host.affinity(host.embed(images)), by_block[:, :blocks].mean(dim=1))


@pytest.mark.parametrize("kind", [kind for kind, config in SMALL.items() if hasattr(config, "scan_stride")])
def test_with_a_stride_patches_lie_between_those_that_were_looked_at(kind):
    host = replace(SMALL[kind], scan_stride=2).build().eval()
    affinity = host.affinity(host.embed(torch.randn(2, 3, 32, 32))).view(2, 8, 8, 8, 8)
    for axis in (1, 2, 3, 4):  # rows and columns, of queries and of keys
        lines = affinity.unbind(axis)
        assert not torch.allclose(lines[0], lines[2], rtol=0.001)
        torch.testing.assert_close(lines[3], (lines[2] + lines[4]) / 2)
        torch.testing.assert_close(lines[7], lines[6])


@pytest.mark.parametrize("kind", SMALL)
def test_a_configuration_comes_back_from_a_file_as_what_it_was(kind):
    config = replace(SMALL[kind], attention_blocks=3)
    assert from_dict(HostConfig, to_dict(config)) == config
    assert to_dict(config)["kind"] == kind


def test_a_file_that_is_older_than_the_choice_is_an_mae():
    config = SMALL["mae"]
    older = {name: value for name, value in to_dict(config).items() if name != "kind"}
    assert from_dict(HostConfig, older) == config
