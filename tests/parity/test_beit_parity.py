"""Our BEiT against transformers' BeitForMaskedImageModeling: same weights, same masks, same tokens, in float32.

What is compared is the logits of all places, those of the hidden ones, and the loss.
"""

import re
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evomask.masking import BlockMasking, Mask, RandomMasking
from evomask.models.beit import BEiT, BEiTConfig
from evomask.models.beit_encoder import BEiTEncoderConfig, attention_maps
from evomask.models.export import export_transformers
from evomask.models.taps import attention_tap

transformers: Any = pytest.importorskip("transformers", minversion="5.0")

TOLERANCE = 1e-4
VOCABULARY = 50
Bias = Literal["shared", "per_block"]
CASES: list[tuple[Bias, int, float]] = [("shared", 3, 0.1), ("per_block", 3, 0.1), ("shared", 1, 0.0)]
"""Position bias, channels, layer scale."""


def theirs_of(bias: Bias, channels: int, scale: float) -> Any:
    config = transformers.BeitConfig(
        image_size=48,
        patch_size=8,
        num_channels=channels,
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        layer_norm_eps=1e-6,
        layer_scale_init_value=scale,
        drop_path_rate=0.0,
        use_mask_token=True,
        use_shared_relative_position_bias=bias == "shared",
        use_relative_position_bias=bias == "per_block",
    )
    return transformers.BeitForMaskedImageModeling(config).eval()


def ours_of(bias: Bias, channels: int, scale: float) -> BEiT:
    encoder = BEiTEncoderConfig(
        image_size=(48, 48),
        patch_size=8,
        width=64,
        depth=3,
        heads=4,
        in_chans=channels,
        position_bias=bias,
        layer_scale=scale,
    )
    return BEiTConfig(encoder=encoder, vocabulary=VOCABULARY).build().eval()


def shake(model: torch.nn.Module) -> None:
    """Weights far from initial ones, so that no zero bias, no unit norm and no table of zeros hides a wrong name."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


NAMES = [
    (r"^beit\.embeddings\.mask_token$", "mask_token"),
    (r"^beit\.embeddings\.cls_token$", "encoder.cls_token"),
    (r"^beit\.embeddings\.patch_embeddings\.projection", "encoder.patch_embed.proj"),
    (r"^beit\.encoder\.relative_position_bias\.", "encoder.rel_pos_bias."),
    (r"^beit\.encoder\.layer\.", "encoder.blocks."),
    (r"^layernorm\.", "encoder.norm."),
    (r"^lm_head\.", "head."),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
    (r"attention\.attention\.relative_position_bias\.", "attn."),
    (r"attention\.attention\.(query|key|value)", r"attn.\1"),
    (r"lambda_", "gamma_"),
]


def as_ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their saved weights under our names: written for this test, apart from the export's own table."""
    ours: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        ours[name] = tensor
    for name in [name for name in ours if name.endswith("attn.query.weight")]:
        stem = name.removesuffix("query.weight")
        ours[f"{stem}qkv.weight"] = torch.cat([ours.pop(f"{stem}{part}.weight") for part in ("query", "key", "value")])
        ours[f"{stem}q_bias"], ours[f"{stem}v_bias"] = ours.pop(f"{stem}query.bias"), ours.pop(f"{stem}value.bias")
    return ours


class GivenTokens(torch.nn.Module):
    """A tokenizer that has said already what is there."""

    def __init__(self, ids: Tensor):
        super().__init__()
        self.given = ids

    def forward(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        return self.given


@torch.no_grad()
def assert_same_outputs(ours: BEiT, theirs: Any, mask: Mask, channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(3, channels, 48, 48, generator=generator)
    ids = torch.randint(VOCABULARY, (3, 36), generator=generator)
    ours.mean, ours.std = (0.5,) * channels, (0.5,) * channels
    ours.__dict__["tokenizer"] = GivenTokens(ids)
    expected = theirs(images, bool_masked_pos=mask.masked, labels=ids[mask.masked])
    tokens = ours.embed(images)
    output = ours(images, tokens, mask)
    torch.testing.assert_close(output.prediction.flatten(0, 1), expected.logits[mask.masked], atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(output.loss, expected.loss, atol=TOLERANCE, rtol=0)
    assert expected.logits.std() > 0.1 and expected.loss > 0.1
    everywhere = Mask(torch.ones_like(mask.masked), 36)
    expected = theirs(images, bool_masked_pos=everywhere.masked).logits
    torch.testing.assert_close(ours.logits(tokens, everywhere), expected, atol=TOLERANCE, rtol=0)


def mask_of(name: str) -> Mask:
    noise = torch.rand(3, 36, generator=torch.Generator().manual_seed(2))
    return (RandomMasking(0.4) if name == "random" else BlockMasking(0.4, min_block=4))(noise, (6, 6))


@pytest.mark.parametrize("mask", ["random", "block"])
@pytest.mark.parametrize(("bias", "channels", "scale"), CASES)
def test_their_weights_in_our_model(tmp_path: Path, bias: Bias, channels: int, scale: float, mask: str) -> None:
    theirs, ours = theirs_of(bias, channels, scale), ours_of(bias, channels, scale)
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    ours.load_state_dict(as_ours(load_file(tmp_path / "model.safetensors")))
    assert_same_outputs(ours, theirs, mask_of(mask), channels)


@pytest.mark.parametrize(("bias", "channels", "scale"), CASES)
def test_our_weights_in_their_model(tmp_path: Path, bias: Bias, channels: int, scale: float) -> None:
    ours = ours_of(bias, channels, scale)
    shake(ours)
    export_transformers(ours, tmp_path / "export", (0.5,) * channels, (0.25,) * channels)
    loader = transformers.BeitForMaskedImageModeling
    theirs, loading = loader.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not any(loading.values()), loading
    assert_same_outputs(ours, theirs.eval(), mask_of("random"), channels)


@pytest.mark.parametrize(("bias", "channels", "scale"), CASES)
@torch.no_grad()
def test_the_attention_and_the_features_are_theirs(tmp_path: Path, bias: Bias, channels: int, scale: float) -> None:
    ours = ours_of(bias, channels, scale)
    shake(ours)
    export_transformers(ours, tmp_path / "export", (0.5,) * channels, (0.25,) * channels)
    loader = transformers.BeitModel
    theirs = loader.from_pretrained(tmp_path / "export", add_pooling_layer=False, attn_implementation="eager").eval()
    images = torch.randn(2, channels, 48, 48, generator=torch.Generator().manual_seed(1))
    expected = theirs(images, output_attentions=True)
    maps = list(attention_maps(ours.encoder, ours.embed(images), 99))
    assert len(maps) == 3
    for mine, his in zip(maps, expected.attentions, strict=True):
        torch.testing.assert_close(mine, his, atol=1e-5, rtol=0)
    mean = torch.stack(expected.attentions).mean(dim=(0, 2))[:, 1:, 1:]
    torch.testing.assert_close(ours.affinity(ours.embed(images)), mean, atol=1e-5, rtol=0)
    torch.testing.assert_close(attention_tap(ours.encoder).by_block(images, 6).mean(dim=1), mean, atol=1e-5, rtol=0)
    normed = ours.encoder.norm(expected.last_hidden_state)  # transformers' BeitModel leaves the last norm to its heads
    torch.testing.assert_close(ours.encoder.forward_features(images), normed, atol=TOLERANCE, rtol=0)
