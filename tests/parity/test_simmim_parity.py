"""Our SimMIM against transformers' ViT, Swin and Swin v2 for masked image modelling: same weights, same masks, in float32.

What is compared is the whole reconstruction and the loss.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from evomask.masking import CellMasking, Mask, RandomMasking
from evomask.models.export import export_transformers
from evomask.models.simmim import SimMIM, SimMIMConfig, SwinSimMIMConfig
from evomask.models.swin import SwinConfig, window_attention
from evomask.models.vit import ViTConfig

transformers: Any = pytest.importorskip("transformers", minversion="5.0")

TOLERANCE = 1e-4
SWIN = {"image_size": 64, "patch_size": 4, "embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 2, 4], "window_size": 4}
OURS = {"image_size": (64, 64), "width": 16, "depths": (2, 2, 2), "heads": (2, 2, 4), "window": 4}


def theirs_of(kind: str, channels: int) -> Any:
    if kind == "ViT":
        config = transformers.ViTConfig(
            image_size=48,
            patch_size=8,
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=256,
            layer_norm_eps=1e-6,
            encoder_stride=8,
            num_channels=channels,
        )
        return transformers.ViTForMaskedImageModeling(config).eval()
    config = getattr(transformers, f"{kind}Config")(**SWIN, num_channels=channels, encoder_stride=16, drop_path_rate=0.0)
    return getattr(transformers, f"{kind}ForMaskedImageModeling")(config).eval()


def ours_of(kind: str, channels: int, cell: int = 16) -> SimMIM:
    if kind == "ViT":
        vit = ViTConfig(
            name="vit_tiny_patch16_224", image_size=(48, 48), patch_size=8, width=64, depth=3, heads=4, in_chans=channels
        )
        return SimMIMConfig(encoder=vit).build().eval()
    name = {"Swin": "swin_tiny_patch4_window7_224", "Swinv2": "swinv2_tiny_window8_256"}[kind]
    return SwinSimMIMConfig(encoder=SwinConfig(name=name, in_chans=channels, **OURS), cell=cell).build().eval()


def shake(model: torch.nn.Module) -> None:
    """Weights far from initial ones, so that no zero bias and no unit norm hides a wrong name."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))


VIT_NAMES = [
    (r"^vit\.embeddings\.mask_token$", "mask_token"),
    (r"^vit\.embeddings\.cls_token$", "encoder.cls_token"),
    (r"^vit\.embeddings\.position_embeddings$", "encoder.pos_embed"),
    (r"^vit\.embeddings\.patch_embeddings\.projection", "encoder.patch_embed.proj"),
    (r"^vit\.layernorm", "encoder.norm"),
    (r"^vit\.encoder\.layer\.", "encoder.blocks."),
]
SWIN_NAMES = [
    (r"^swin(v2)?\.embeddings\.mask_token$", "mask_token"),
    (r"^swin(v2)?\.embeddings\.norm", "encoder.patch_embed.norm"),
    (r"^swin(v2)?\.embeddings\.patch_embeddings\.projection", "encoder.patch_embed.proj"),
    (r"^swin(v2)?\.layernorm", "encoder.norm"),
    (r"^swin(v2)?\.encoder\.", "encoder."),
    (r"attention\.self\.continuous_position_bias_mlp", "attn.cpb_mlp"),
    (r"attention\.self\.(logit_scale|relative_position_bias_table)", r"attn.\1"),
]
BLOCK_NAMES = [
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"attention\.output\.dense", "attn.proj"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
    (r"attention\.(attention|self)\.(query|key|value)", r"attn.\2"),
]


def as_ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their saved weights under our names: written for this test, apart from the export's own table."""
    ours: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        for pattern, replacement in VIT_NAMES + SWIN_NAMES + BLOCK_NAMES:
            name = re.sub(pattern, replacement, name)
        name = re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", name)
        ours[name] = tensor
    ours["head.weight"], ours["head.bias"] = ours.pop("decoder.0.weight").flatten(1), ours.pop("decoder.0.bias")
    version_2 = any("logit_scale" in name for name in ours)
    for name in [name for name in ours if name.endswith("attn.query.weight")]:
        stem = name.removesuffix("query.weight")
        ours[f"{stem}qkv.weight"] = torch.cat([ours.pop(f"{stem}{part}.weight") for part in ("query", "key", "value")])
        if version_2:
            ours[f"{stem}q_bias"], ours[f"{stem}v_bias"] = ours.pop(f"{stem}query.bias"), ours.pop(f"{stem}value.bias")
        else:
            ours[f"{stem}qkv.bias"] = torch.cat([ours.pop(f"{stem}{part}.bias") for part in ("query", "key", "value")])
    return ours


@torch.no_grad()
def assert_same_outputs(ours: SimMIM, theirs: Any, mask: Mask, channels: int) -> None:
    size = ours.encoder.patch_embed.img_size
    images = torch.randn(3, channels, *size, generator=torch.Generator().manual_seed(1))
    rows, columns = ours.grid
    times = ours.patch_size[0] // ours.encoder.patch_embed.patch_size[0]
    hidden = mask.masked.view(3, rows, columns).repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1)
    expected = theirs(images, bool_masked_pos=hidden)
    tokens = ours.embed(images)
    restored, output = ours.restore(tokens, mask), ours(images, tokens, mask)
    torch.testing.assert_close(restored, expected.reconstruction, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(output.loss, expected.loss, atol=TOLERANCE, rtol=0)
    assert expected.reconstruction.std() > 0.1 and expected.loss > 0.1
    everywhere = ours.patchify(restored)
    assert torch.equal(output.prediction, everywhere[mask.masked].view_as(output.prediction))


def mask_of(ours: SimMIM, name: str) -> Mask:
    noise = torch.rand(3, ours.grid[0] * ours.grid[1], generator=torch.Generator().manual_seed(2))
    masking = RandomMasking(0.6) if name == "random" else CellMasking(0.6, cell=2)
    return masking(noise, ours.grid)


@pytest.mark.parametrize("mask", ["random", "cells"])
@pytest.mark.parametrize(("kind", "channels"), [("ViT", 3), ("ViT", 1), ("Swin", 3), ("Swin", 2), ("Swinv2", 3)])
def test_their_weights_in_our_model(tmp_path: Path, kind: str, channels: int, mask: str) -> None:
    theirs, ours = theirs_of(kind, channels), ours_of(kind, channels)
    shake(theirs)
    theirs.save_pretrained(tmp_path)
    ours.load_state_dict(as_ours(load_file(tmp_path / "model.safetensors")))
    assert_same_outputs(ours, theirs, mask_of(ours, mask), channels)


@pytest.mark.parametrize(("kind", "channels"), [("ViT", 3), ("ViT", 1), ("Swin", 3), ("Swinv2", 3), ("Swinv2", 1)])
def test_our_weights_in_their_model(tmp_path: Path, kind: str, channels: int) -> None:
    ours = ours_of(kind, channels, cell=8)
    shake(ours)
    export_transformers(ours, tmp_path / "export", (0.5,) * channels, (0.25,) * channels)
    loader = getattr(transformers, f"{kind}ForMaskedImageModeling")
    theirs, loading = loader.from_pretrained(tmp_path / "export", output_loading_info=True)
    assert not any(loading.values()), loading
    assert_same_outputs(ours, theirs.eval(), mask_of(ours, "random"), channels)


@torch.no_grad()
def test_the_attention_of_swin_is_theirs(tmp_path: Path) -> None:
    """transformers hands out that of the last block of each stage, which is shifted where the grid is larger than a window."""
    for kind in ("Swin", "Swinv2"):
        ours = ours_of(kind, 3)
        shake(ours)
        export_transformers(ours, tmp_path / kind, (0.5,) * 3, (0.25,) * 3)
        loader = getattr(transformers, f"{kind}Model")
        theirs = loader.from_pretrained(tmp_path / kind, add_pooling_layer=False, attn_implementation="eager").eval()
        images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        maps = list(window_attention(ours.encoder, ours.embed(images), 99))
        expected = theirs(images, output_attentions=True).attentions
        for stage in range(3):
            torch.testing.assert_close(maps[2 * stage + 1].flatten(0, 1), expected[stage], atol=1e-5, rtol=0)
