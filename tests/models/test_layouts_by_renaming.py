"""Features through `--encoder` for the layouts of code bases that cannot be installed.

Their files are made of a model of timm or transformers here, key by key as those code bases name them; the model says what
is to come out.
"""

import argparse
import re
from pathlib import Path

import pytest
import torch
from timm.models.beit import Beit
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3}
HALF = (0.5, 0.5, 0.5)
BLOCK_OF_MAE = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def outputs(model, images: Tensor) -> dict[str, Tensor]:
    tokens = model.forward_features(images)
    patches = tokens[:, model.num_prefix_tokens :]
    return {"class_token": model.fc_norm(tokens[:, 0]), "patches": model.fc_norm(patches)}


@pytest.mark.parametrize("wrapped", [False, True])
def test_mae_of_facebookresearch(tmp_path: Path, photos: Tensor, randomise, expect, wrapped: bool) -> None:
    """A pretraining file: decoder and mask token beside the encoder; its program's arguments beside them."""
    model = randomise(VisionTransformer(**VIT, num_classes=0))
    state = dict(model.state_dict()) | {"mask_token": torch.ones(1, 1, 16), "decoder_pos_embed": torch.ones(1, 17, 16)}
    for layer in ("decoder_embed", "decoder_norm", "decoder_pred", *(f"decoder_blocks.0.{part}" for part in BLOCK_OF_MAE)):
        state |= {f"{layer}.weight": torch.ones(4, 4), f"{layer}.bias": torch.ones(4)}
    arguments = argparse.Namespace(model="mae_vit_base_patch16", blr=1.5e-4)
    torch.save({"model": state, "optimizer": {"state": {}}, "args": arguments} if wrapped else state, tmp_path / "mae.pth")
    layout, left_out = "MAE of facebookresearch", "decoder (19), mask_token (1)"
    expect(f"{tmp_path / 'mae.pth'}?heads=3", layout=layout, left_out=left_out, **outputs(model, photos))


def test_mae_of_facebookresearch_fine_tuned(tmp_path: Path, photos: Tensor, randomise, expect) -> None:
    model = randomise(VisionTransformer(**VIT, num_classes=5, global_pool="avg"))
    torch.save({"model": model.state_dict(), "epoch": 99}, tmp_path / "mae.pth")
    mean = model.fc_norm(model.forward_features(photos)[:, 1:].mean(dim=1))
    expect(f"{tmp_path / 'mae.pth'}?heads=3", layout="ViT of timm, DeiT, DINO or MAE", mean=mean, logits=model(photos))


def test_mae_of_evomask(tmp_path: Path, photos: Tensor, randomise, expect) -> None:
    config = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=8, width=48, depth=2, heads=3, registers=2)
    host = randomise(MAEConfig(encoder=config, decoder_width=16, decoder_depth=1, decoder_heads=2).build())
    torch.save(host.state_dict(), tmp_path / "host.pt")
    left_out = "decoder (18), mask_token (1)"
    expect(f"{tmp_path / 'host.pt'}?heads=3", layout="MAE of evomask", left_out=left_out, **outputs(host.encoder, photos))


def as_beit(model: Beit) -> dict[str, Tensor]:
    """The buffers that the original keeps, timm's does not keep."""
    index = {"relative_position_index": torch.zeros(17, 17, dtype=torch.long)}
    state = dict(model.state_dict())
    for key in list(state):
        if key.endswith("relative_position_bias_table"):
            state |= {key.replace("relative_position_bias_table", name): buffer for name, buffer in index.items()}
    return state


def test_beit_pretrained(tmp_path: Path, photos: Tensor, randomise, expect) -> None:
    model = randomise(Beit(**VIT, num_classes=0, use_abs_pos_emb=False, use_shared_rel_pos_bias=True, init_values=0.1,
                           global_pool="token"))  # fmt: skip
    state = as_beit(model) | {"mask_token": torch.ones(1, 1, 48)}
    state |= {"lm_head.weight": torch.ones(7, 48), "lm_head.bias": torch.ones(7)}
    torch.save({"model": state, "epoch": 3}, tmp_path / "beit.pth")
    left_out = "lm_head (2), mask_token (1), relative_position_index (1)"
    expect(str(tmp_path / "beit.pth"), layout="BEiT", left_out=left_out, channel_mean=HALF, **outputs(model, photos))


def test_beit_fine_tuned(tmp_path: Path, photos: Tensor, randomise, expect) -> None:
    model = randomise(Beit(**VIT, num_classes=5, use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1))
    torch.save({"module": as_beit(model)}, tmp_path / "beit.pth")
    given = {"mean": model.fc_norm(model.forward_features(photos)[:, 1:].mean(dim=1)), "logits": model(photos)}
    given |= {"left_out": "relative_position_index (4)", "channel_mean": HALF}
    expect(str(tmp_path / "beit.pth"), layout="BEiT", **given, **outputs(model, photos))


def test_simmim_vit(tmp_path: Path, photos: Tensor, randomise, expect) -> None:
    """SimMIM's ViT is BEiT's, with one table of relative positions for all blocks."""
    model = randomise(Beit(**VIT, num_classes=0, use_abs_pos_emb=False, use_shared_rel_pos_bias=True, init_values=0.1,
                           global_pool="token"))  # fmt: skip
    state = {f"encoder.{key}": tensor for key, tensor in as_beit(model).items()} | simmim_decoder(48)
    torch.save({"model": state}, tmp_path / "simmim.pth")
    left_out = "decoder (2), mask_token (1), relative_position_index (1)"
    expect(str(tmp_path / "simmim.pth"), layout="SimMIM, ViT", left_out=left_out, **outputs(model, photos))


def simmim_decoder(width: int) -> dict[str, Tensor]:
    return {
        "encoder.mask_token": torch.ones(1, 1, width),
        "decoder.0.weight": torch.ones(192, width, 1, 1),
        "decoder.0.bias": torch.ones(192),
    }


@pytest.mark.parametrize("simmim", [False, True])
def test_swin_as_it_was_published(tmp_path: Path, photos: Tensor, randomise, expect, simmim: bool) -> None:
    """Downsampling ends a stage there; masks of shifted windows are kept; the classifier is called head."""
    model = randomise(
        SwinTransformer(img_size=32, patch_size=2, embed_dim=16, depths=(2, 2, 1), num_heads=(2, 4, 8), window_size=2,
                        num_classes=0 if simmim else 5)
    )  # fmt: skip
    state = {}
    for key, tensor in model.state_dict().items():
        found = re.fullmatch(r"layers\.(\d)\.downsample\.(.*)", key)
        key = f"layers.{int(found[1]) - 1}.downsample.{found[2]}" if found else key.replace("head.fc.", "head.")
        state[key] = tensor
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 4, 4)
    state["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(4, 4, dtype=torch.long)
    if simmim:
        state = {f"encoder.{key}": tensor for key, tensor in state.items()} | simmim_decoder(16)
    torch.save({"model": state, "max_accuracy": 0.0}, tmp_path / "swin.pth")
    tokens = model.forward_features(photos).flatten(1, 2)
    logits = None if simmim else model(photos)
    layout = "SimMIM, Swin" if simmim else "Swin"
    left_out = "attn_mask (1), decoder (2), mask_token (1), relative_position_index (1)"
    if not simmim:
        left_out = "attn_mask (1), relative_position_index (1)"
    spec = f"{tmp_path / 'swin.pth'}?image_size=32"
    expect(spec, layout=layout, left_out=left_out, patches=tokens, mean=tokens.mean(dim=1), logits=logits)


def test_deit_iii(tmp_path: Path, photos: Tensor, randomise, expect) -> None:
    model = randomise(VisionTransformer(**VIT, num_classes=5, no_embed_class=True, init_values=1e-6))
    state = {re.sub(r"\.ls([12])\.gamma", r".gamma_\1", key): tensor for key, tensor in model.state_dict().items()}
    torch.save({"model": state}, tmp_path / "deit.pth")
    expect(f"{tmp_path / 'deit.pth'}?heads=3", layout="DeiT III", logits=model(photos), **outputs(model, photos))


SIZES = {"hidden_size": 48, "num_hidden_layers": 4, "num_attention_heads": 3, "image_size": 32, "patch_size": 8}


def as_facebook(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A ViT or DINOv2 of transformers, by the names that DINO and DINOv2 give."""
    named = {}
    for key, tensor in state.items():
        for pattern, replacement in (
            (r"^embeddings\.(cls_token|mask_token|register_tokens)", r"\1"),
            (r"^embeddings\.position_embeddings", "pos_embed"),
            (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
            (r"^(encoder\.layer|layers)\.", "blocks."),
            (r"layernorm_before", "norm1"),
            (r"layernorm_after", "norm2"),
            (r"^layernorm", "norm"),
            (r"attention\.o_proj", "attn.proj"),
            (r"layer_scale([12])\.lambda1", r"ls\1.gamma"),
            (r"mlp\.down_proj", "mlp.w3"),
        ):
            key = re.sub(pattern, replacement, key)
        named[key] = tensor
    for joined, parts in {
        "attn.qkv": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        "mlp.w12": ("mlp.gate_proj", "mlp.up_proj"),
    }.items():
        for key in [key for key in named if parts[0] in key]:
            named[key.replace(parts[0], joined)] = torch.cat([named.pop(key.replace(parts[0], part)) for part in parts])
    return named


def test_dino(tmp_path: Path, photos: Tensor, randomise, expect) -> None:
    """A whole checkpoint: the teacher is taken, its projection head is left out."""
    transformers = pytest.importorskip("transformers")
    model = randomise(transformers.ViTModel(transformers.ViTConfig(**SIZES, layer_norm_eps=1e-6), add_pooling_layer=False))
    backbone = as_facebook(model.state_dict())
    head = {"head.mlp.0.weight": torch.ones(9, 48), "head.last_layer.weight_g": torch.ones(9, 1)}
    content = {
        "student": {f"module.backbone.{key}": tensor + 1 for key, tensor in backbone.items()},
        "teacher": {f"backbone.{key}": tensor for key, tensor in backbone.items()} | head,
        "args": argparse.Namespace(arch="vit_small"),
    }
    tokens = model(photos).last_hidden_state
    torch.save(content, tmp_path / "dino.pth")
    expect(
        f"{tmp_path / 'dino.pth'}?heads=3", layout="DINO", left_out="head (2)", class_token=tokens[:, 0], patches=tokens[:, 1:]
    )
    torch.save(backbone, tmp_path / "backbone.pth")
    expect(f"{tmp_path / 'backbone.pth'}?heads=3", class_token=tokens[:, 0], patches=tokens[:, 1:])


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("form", ["backbone", "chunks", "teacher and student"])
def test_dinov2(tmp_path: Path, photos: Tensor, randomise, expect, registers: int, swiglu: bool, form: str) -> None:
    transformers = pytest.importorskip("transformers")
    if registers:
        config = transformers.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=registers, use_swiglu_ffn=swiglu)
        model = randomise(transformers.Dinov2WithRegistersModel(config))
    else:
        model = randomise(transformers.Dinov2Model(transformers.Dinov2Config(**SIZES, use_swiglu_ffn=swiglu)))
    state = as_facebook(model.state_dict())
    if form == "chunks":  # two blocks a chunk, numbered on
        state = {re.sub(r"^blocks\.(\d)\.", lambda n: f"blocks.{int(n[1]) // 2}.{n[1]}.", k): v for k, v in state.items()}
    if form == "teacher and student":
        state = {f"student.backbone.{key}": tensor + 1 for key, tensor in state.items()} | {
            f"teacher.backbone.{key}": tensor for key, tensor in state.items()
        }
        state |= {"teacher.dino_head.mlp.0.weight": torch.ones(9, 48), "student.dino_head.mlp.0.weight": torch.ones(9, 48)}
    torch.save({"model": state}, tmp_path / "dinov2.pth")
    tokens = model(photos).last_hidden_state
    left_out = "mask_token (1), student (65), teacher (1)" if registers else "mask_token (1), student (64), teacher (1)"
    if form != "teacher and student":
        left_out = "mask_token (1)"
    spec = f"{tmp_path / 'dinov2.pth'}?heads=3"
    expect(spec, layout="DINOv2", left_out=left_out, class_token=tokens[:, 0], patches=tokens[:, 1 + registers :])
