"""The BEiT host: what it hides, what its loss counts, where its targets come from. Equality with transformers is in parity/."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from evomask.masking import Mask
from evomask.models.beit import BEiT, BEiTConfig
from evomask.models.beit_encoder import BEiTEncoderConfig
from evomask.models.discrete_vae import DiscreteVAE, DiscreteVAEConfig
from evomask.models.tokenizers import save_tokenizer

ENCODER = BEiTEncoderConfig(image_size=(32, 48), patch_size=8, width=24, depth=2, heads=2)
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def tokenizer_of(seed: int = 0, **options: Any) -> DiscreteVAE:
    torch.manual_seed(seed)
    model = DiscreteVAEConfig(**{"levels": (5, 4), "stride": 4, "width": 8} | options).build()
    return model.eval().requires_grad_(False)


def build(config: BEiTConfig | None = None) -> BEiT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        tokenizer = tokenizer_of()
        host = BEiT((config or BEiTConfig(encoder=ENCODER)).encoder.build(), vocabulary=20, tokenizer=tokenizer)
        for parameter in host.parameters():
            with torch.no_grad():
                parameter.add_(0.05 * torch.randn_like(parameter))
    host.mean, host.std = MEAN, STD
    return host.eval()


HOST = build()


def pictures(seed: int = 0) -> Tensor:
    """(2, 3, 32, 48) in [0, 1]."""
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(seed))


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - torch.tensor(MEAN).view(-1, 1, 1)) / torch.tensor(STD).view(-1, 1, 1)


def some_mask(hidden: int = 7) -> Mask:
    return Mask.highest(torch.rand(2, 24, generator=torch.Generator().manual_seed(5)), hidden)


@torch.no_grad()
def test_targets_are_the_tokens_of_the_same_crop_in_the_tokenizer_s_own_size():
    """Patches have 8 px and tokens 4: the tokenizer is shown half the size, in [0, 1]."""
    pixels = pictures()
    half = functional.interpolate(pixels, (16, 24), mode="bicubic", antialias=True).clamp(0, 1)
    expected = HOST.tokenizer.ids(half).flatten(1)
    assert HOST.target(normalised(pixels)).equal(expected) and len(expected.unique()) > 3


@torch.no_grad()
def test_the_loss_is_the_cross_entropy_of_hidden_tokens():
    images, mask = normalised(pictures()), some_mask()
    output = HOST(images, HOST.embed(images), mask)
    assert output.prediction.shape == (2, 7, 20)
    target, total = HOST.target(images), 0.0
    for image in range(2):
        for place, logits in zip(mask.masked_indices[image], output.prediction[image], strict=True):
            total -= logits.softmax(dim=-1)[target[image, place]].log().item()
    assert output.loss.item() == pytest.approx(total / 14, abs=1e-5)


@torch.no_grad()
def test_hidden_patches_cannot_be_seen():
    mask = some_mask()
    hidden = mask.masked.view(2, 1, 4, 6).repeat_interleave(8, 2).repeat_interleave(8, 3)
    images, others = normalised(pictures()), normalised(pictures(9))
    first, second = (HOST.logits(HOST.embed(x), mask) for x in (images, torch.where(hidden, others, images)))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    third = HOST.logits(HOST.embed(torch.where(hidden, images, others)), mask)
    assert (third - first).abs().mean() > 1e-3


@torch.no_grad()
def test_the_encoder_is_that_of_timm():
    """All hidden behind a mask token of zeros, it is what timm makes of patches that are embedded as zeros."""
    host, images = build(), normalised(pictures())
    for parameter in (host.mask_token, host.encoder.patch_embed.proj.weight, host.encoder.patch_embed.proj.bias):
        parameter.zero_()
    blind = host.logits(host.embed(images), Mask(torch.ones(2, 24, dtype=torch.bool), 24))
    torch.testing.assert_close(blind, host.head(host.encoder.forward_features(images)[:, 1:]))


def test_the_tokenizer_is_no_part_of_the_host():
    assert {key.split(".")[0] for key in HOST.state_dict()} == {"encoder", "mask_token", "head"}
    assert isinstance(HOST.tokenizer, DiscreteVAE)
    assert {name.split(".")[0] for name, _ in HOST.named_parameters()} == {"encoder", "mask_token", "head"}
    HOST.train()
    assert not HOST.tokenizer.training
    HOST.eval()


def test_the_gradient_reaches_every_parameter():
    host = build().train()
    images = normalised(pictures())
    host(images, host.embed(images), some_mask()).loss.backward()
    assert not [name for name, p in host.named_parameters() if p.grad is None or not p.grad.any()]


def test_initial_weights_are_those_of_the_original():
    """Cut off at one deviation of 0.02, of which 0.0108 is left; the last layers of block i less by sqrt(2 i)."""
    torch.manual_seed(0)
    host = BEiTConfig(encoder=BEiTEncoderConfig(width=192, heads=3, depth=3, image_size=(64, 64))).build()
    kept = 0.02 * math.sqrt(1 - 2 * math.exp(-0.5) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(0.5)))
    whole = [host.head.weight, host.encoder.patch_embed.proj.weight, host.encoder.blocks[1].attn.qkv.weight]
    for weight in whole:
        assert weight.abs().max() <= 0.02 and weight.std().item() == pytest.approx(kept, rel=0.02)
    for number, block in enumerate(host.encoder.blocks, start=1):
        for layer in (block.attn.proj, block.mlp.fc2):
            assert layer.weight.std().item() == pytest.approx(kept / math.sqrt(2 * number), rel=0.02)
    for token in (host.mask_token, host.encoder.cls_token):
        assert 0.005 < token.std() < 0.02
    assert not host.head.bias.any() and not host.encoder.patch_embed.proj.bias.any()
    assert not host.encoder.rel_pos_bias.relative_position_bias_table.any()


@torch.no_grad()
def test_a_reconstruction_is_what_the_decoder_makes_of_the_tokens_that_were_told():
    images, mask = normalised(pictures()), some_mask()
    restored = HOST.reconstruct(images, mask)
    assert restored is not None and restored.shape == images.shape
    hidden = mask.masked.view(2, 1, 4, 6).repeat_interleave(8, 2).repeat_interleave(8, 3).expand_as(images)
    assert restored[~hidden].equal(images[~hidden])
    ids = HOST.target(images)
    ids[mask.masked] = HOST.logits(HOST.embed(images), mask).argmax(dim=-1).flatten()
    decoded = HOST.tokenizer.decode(ids.view(2, 4, 6))
    large = normalised(functional.interpolate(decoded, (32, 48), mode="bicubic", antialias=True))
    torch.testing.assert_close(restored[hidden], large[hidden])


def test_a_run_writes_down_which_tokenizer_it_was(tmp_path: Path):
    save_tokenizer(tokenizer_of(), tmp_path / "tokenizer")
    config = BEiTConfig(encoder=ENCODER, tokenizer=str(tmp_path / "tokenizer")).pinned()
    assert config.vocabulary == 20 and len(config.tokenizer_sha256 or "") == 64
    assert config.pinned() == config
    assert config.build().tokenizer.vocabulary == config.build().head.out_features == 20
    save_tokenizer(tokenizer_of(1), tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="is not the one that this run began with"):
        config.pinned()
    with pytest.raises(ValueError, match="is not the one that this run began with"):
        config.build().target(normalised(pictures()))


def test_without_a_tokenizer_it_is_built_and_looked_at():
    host = BEiTConfig(encoder=ENCODER).build()
    images = normalised(pictures())
    assert host.affinity(host.embed(images)).shape == (2, 24, 24)
    with pytest.raises(ValueError, match=r"name one, --host.tokenizer .*`evomask train-tokenizer"):
        host(images, host.embed(images), some_mask())
    with pytest.raises(ValueError, match="`evomask train-tokenizer"):
        BEiTConfig(encoder=ENCODER).pinned()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BEiTConfig(encoder=ENCODER, attention_blocks=0).build(), "attention_blocks must be at least 1, not 0"),
        (lambda: BEiTConfig(encoder=ENCODER, scan_stride=5).build(), "scan_stride must lie between 1 and"),
        (lambda: HOST(pictures(), HOST.embed(pictures()), Mask(torch.zeros(2, 25, dtype=torch.bool), 0)), "a class token does"),
    ],
)
def test_what_does_not_fit_is_said(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_tokenizer_for_other_channels_is_refused(tmp_path: Path):
    save_tokenizer(tokenizer_of(in_chans=1), tmp_path / "grey")
    with pytest.raises(ValueError, match="is for images of 1 channels, not 3: name another"):
        BEiTConfig(encoder=ENCODER, tokenizer=str(tmp_path / "grey")).pinned()
