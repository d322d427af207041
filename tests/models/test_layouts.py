"""Features and logits through `--encoder` against the original library's, for each layout of keys that a library installs.

The layouts of code bases that cannot be installed are in test_layouts_by_renaming.py.
"""

from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.data.constants import IMAGENET_DEFAULT_MEAN, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from evomask.models.layouts import read_layout

transformers = pytest.importorskip("transformers")

CLASSES, SIZE, HALF = 5, 32, (0.5, 0.5, 0.5)
VIT = {"img_size": SIZE, "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3, "num_classes": CLASSES}
TIMM = {
    "ViT": lambda: VisionTransformer(**VIT),
    "registers, with positions of their own": lambda: VisionTransformer(**VIT, reg_tokens=3),
    "registers without positions": lambda: VisionTransformer(**VIT, reg_tokens=4, no_embed_class=True),
    "no class token": lambda: VisionTransformer(**VIT, class_token=False, global_pool="avg", fc_norm=False),
    "norm after pooling": lambda: VisionTransformer(**VIT, global_pool="avg"),
    "layer scale, normalised queries": lambda: VisionTransformer(**VIT, init_values=1e-5, qk_norm=True),
    "CLIP": lambda: VisionTransformer(**VIT, pre_norm=True, norm_layer=partial(nn.LayerNorm, eps=1e-5)),
    "no bias, no positions of tokens": lambda: VisionTransformer(**VIT, qkv_bias=False, no_embed_class=True),
    "MLP of another ratio": lambda: VisionTransformer(**VIT, mlp_ratio=2.7),
    "SwiGLU": lambda: VisionTransformer(
        **VIT, mlp_layer=timm.layers.SwiGLUPacked, act_layer=nn.SiLU, mlp_ratio=2.66667 * 2, init_values=1e-5
    ),
    "DeiT, distilled": lambda: VisionTransformerDistilled(**VIT),
    "BEiT, biases in each block": lambda: Beit(**VIT, use_rel_pos_bias=True, use_abs_pos_emb=False, init_values=0.1),
    "BEiT, shared bias": lambda: Beit(**VIT, use_shared_rel_pos_bias=True, use_abs_pos_emb=False, global_pool="token"),
    "BEiT, absolute positions": lambda: Beit(**VIT, global_pool="token"),
}  # fmt: skip


@pytest.mark.parametrize("name", TIMM)
def test_timm(tmp_path: Path, photos: Tensor, randomise, expect, name: str) -> None:
    model = randomise(TIMM[name]())
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    tokens = model.forward_features(photos)
    prefix = model.num_prefix_tokens
    family = name.partition(" ")[0].rstrip(",")
    layouts = {"BEiT": "BEiT", "DeiT": "DeiT, distilled", "CLIP": "CLIP of timm"}
    expect(
        f"{tmp_path / 'weights.safetensors'}?heads=3",
        layout=layouts.get(family, "ViT of timm, DeiT, DINO or MAE"),
        channel_mean={"BEiT": HALF, "CLIP": OPENAI_CLIP_MEAN}.get(family, IMAGENET_DEFAULT_MEAN),
        class_token=model.fc_norm(tokens[:, 0]) if prefix else None,
        patches=model.fc_norm(tokens[:, prefix:]),
        mean=model.fc_norm(tokens[:, prefix:].mean(dim=1)),
        logits=model(photos),
    )


def small_swin() -> SwinTransformer:
    return SwinTransformer(
        img_size=64, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4, num_classes=CLASSES
    )


def test_swin_of_timm(tmp_path: Path, randomise, expect) -> None:
    """The size of its images is the customary one: 8 windows along a side."""
    model = randomise(small_swin())
    torch.save({"model": model.state_dict()}, tmp_path / "swin.pth")
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    tokens = model.forward_features(images).flatten(1, 2)
    encoder = expect(f"{tmp_path / 'swin.pth'}", images=images, patches=tokens, mean=tokens.mean(dim=1), logits=model(images))
    assert (encoder.width, encoder.image_size, encoder.poolings) == (32, (64, 64), ("mean",))
    with pytest.raises(ValueError, match=r"swin\.pth has no class token: its features are the mean over patches"):
        encoder.features(images, "token")


SIZES = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": SIZE,
    "patch_size": 8,
    "num_labels": CLASSES,
}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}


def vit_of_transformers():
    model = transformers.ViTForImageClassification(transformers.ViTConfig(**SIZES))
    return model, lambda images: model.vit(images).last_hidden_state, lambda images: model(images).logits


def bare_vit_of_transformers():
    model = transformers.ViTModel(transformers.ViTConfig(**SIZES))
    return model, lambda images: model(images).last_hidden_state, None


def mae_of_transformers():
    """Nothing masked, and patches in their order."""
    model = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(**SIZES, mask_ratio=0.0, decoder_hidden_size=32, decoder_num_hidden_layers=1,
                                  decoder_num_attention_heads=2, decoder_intermediate_size=64)
    )  # fmt: skip
    return model, lambda images: model.vit(images, noise=torch.arange(16.0).expand(2, -1)).last_hidden_state, None


def dinov2_of_transformers(**options):
    """Its classifier sees the class token beside the mean of patches: timm's ViT has no such one."""
    model = transformers.Dinov2ForImageClassification(transformers.Dinov2Config(**SIZES, mlp_ratio=2, **options))
    return model, lambda images: model.dinov2(images).last_hidden_state, None


def swiglu_of_transformers():
    return dinov2_of_transformers(use_swiglu_ffn=True)


def registers_of_transformers():
    model = transformers.Dinov2WithRegistersModel(
        transformers.Dinov2WithRegistersConfig(**SIZES, mlp_ratio=2, num_register_tokens=4)
    )
    return model, lambda images: model(images).last_hidden_state, None


def beit_of_transformers():
    """As it is pretrained; the classifier, which pools before the norm, is below."""
    config = transformers.BeitConfig(**SIZES, use_shared_relative_position_bias=True, use_mask_token=True, vocab_size=7)
    model = transformers.BeitForMaskedImageModeling(config)
    return model, lambda images: model.layernorm(model.beit(images).last_hidden_state), None


def deit_of_transformers():
    model = transformers.DeiTForImageClassificationWithTeacher(transformers.DeiTConfig(**SIZES))
    return model, lambda images: model.deit(images).last_hidden_state, lambda images: model(images).logits


def clip_of_transformers(activation: str = "quick_gelu"):
    model = transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**SIZES, hidden_act=activation, projection_dim=CLASSES)
    )
    tower = model.vision_model
    # Upstream, only the class token is normed.
    return (
        model,
        lambda images: tower.post_layernorm(model(images).last_hidden_state),
        lambda images: model(images).image_embeds,
    )


def gelu_of_transformers():
    return clip_of_transformers("gelu")


TRANSFORMERS = {
    "ViT": ("ViT or ViT-MAE of transformers", vit_of_transformers, None),
    "ViT without classifier": ("ViT or ViT-MAE of transformers", bare_vit_of_transformers, "pooler.dense (2)"),
    "ViT-MAE": ("ViT or ViT-MAE of transformers", mae_of_transformers, "decoder (24)"),
    "DINOv2": ("DINOv2 of transformers", dinov2_of_transformers, "classifier (2), mask_token (1)"),
    "DINOv2 with SwiGLU": ("DINOv2 of transformers", swiglu_of_transformers, "classifier (2), mask_token (1)"),
    "DINOv2 with registers": ("DINOv2 of transformers", registers_of_transformers, "mask_token (1)"),
    "BEiT": ("BEiT of transformers", beit_of_transformers, "lm_head (2), mask_token (1)"),
    "DeiT": ("DeiT of transformers, distilled", deit_of_transformers, None),
    "CLIP": ("CLIP of transformers", clip_of_transformers, None),
    "CLIP with gelu": ("CLIP of transformers", gelu_of_transformers, None),
}
"""Name -> layout, (model, function of images to all tokens, another to logits), and what is left out."""


@pytest.mark.parametrize("form", ["folder", "file", "memory"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(tmp_path: Path, photos: Tensor, randomise, expect, name: str, form: str) -> None:
    torch.manual_seed(0)
    layout, build, left_out = TRANSFORMERS[name]
    model, tokens, logits = build()
    randomise(model)
    spec = saved(model, tmp_path, form)
    if "gelu" in name and form != "folder":  # the folder's config.json says it
        spec += "&activation=gelu"
    expected = tokens(photos)
    patches = expected[:, -16:]
    given = {"class_token": expected[:, 0], "patches": patches, "mean": patches.mean(dim=1)}
    given["logits"] = logits(photos) if logits else None
    customary = {"CLIP of transformers": OPENAI_CLIP_MEAN, "BEiT of transformers": HALF}
    expect(spec, layout=layout, left_out=left_out, channel_mean=customary.get(layout, IMAGENET_DEFAULT_MEAN), **given)


def saved(model: nn.Module, folder: Path, form: str) -> str:
    """As a folder, with names of version 4 in its file; that file alone; or the names that version 5 has in memory."""
    if form == "memory":
        torch.save(model.state_dict(), folder / "weights.bin")
        return f"{folder / 'weights.bin'}?heads=3"
    model.save_pretrained(folder / "model")  # type: ignore[operator]
    if form == "folder":
        return str(folder / "model")
    return f"{(folder / 'model' / 'model.safetensors').rename(folder / 'weights.safetensors')}?heads=3"


@pytest.mark.parametrize("form", ["folder", "file", "memory"])
def test_beit_classifier_of_transformers(tmp_path: Path, photos: Tensor, randomise, expect, form: str) -> None:
    """It pools before the norm."""
    torch.manual_seed(0)
    config = transformers.BeitConfig(**SIZES, use_relative_position_bias=True)
    model = randomise(transformers.BeitForImageClassification(config))
    output = model.beit(photos)
    spec = saved(model, tmp_path, form)
    given = {"mean": output.pooler_output, "logits": model(photos).logits}
    expect(spec, layout="BEiT of transformers", channel_mean=HALF, **given)


@pytest.mark.parametrize("form", ["folder", "file", "memory"])
def test_swin_of_transformers(tmp_path: Path, photos: Tensor, randomise, expect, form: str) -> None:
    torch.manual_seed(0)
    model = randomise(transformers.SwinForImageClassification(transformers.SwinConfig(**SWIN, num_labels=CLASSES)))
    spec = saved(model, tmp_path, form).removesuffix("?heads=3") + ("" if form == "folder" else "?image_size=32")
    tokens = model.swin(photos).last_hidden_state
    given = {"patches": tokens, "mean": tokens.mean(dim=1), "logits": model(photos).logits}
    expect(spec, layout="Swin of transformers", **given)


def test_whole_clip_of_transformers(tmp_path: Path, photos: Tensor, randomise, expect) -> None:
    """Both towers: the text tower is left out."""
    torch.manual_seed(0)
    vision = {key: value for key, value in SIZES.items() if key != "num_labels"}
    text = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 99}
    model = randomise(transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=6)))
    state = model.state_dict() | {"vision_model.embeddings.position_ids": torch.arange(17)}  # in files of older versions
    torch.save(state, tmp_path / "pytorch_model.bin")
    model.config.save_pretrained(tmp_path)
    features = model.vision_model(photos).pooler_output
    left_out = "logit_scale (1), position_ids (1), text_model (20), text_projection (1)"
    logits = model.visual_projection(features)
    given = {"left_out": left_out, "class_token": features, "logits": logits}
    expect(str(tmp_path), layout="CLIP of transformers", channel_mean=OPENAI_CLIP_MEAN, **given)


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("wrapped", ["whole", "tower", "module"])
def test_open_clip(tmp_path: Path, photos: Tensor, randomise, expect, quick: bool, wrapped: str) -> None:
    open_clip = pytest.importorskip("open_clip")
    torch.manual_seed(0)
    vision = open_clip.CLIPVisionCfg(layers=2, width=64, head_width=16, patch_size=8, image_size=SIZE, ls_init_value=0.1)
    text = open_clip.CLIPTextCfg(context_length=4, vocab_size=9, width=16, heads=2, layers=1)
    model = randomise(open_clip.CLIP(embed_dim=6, vision_cfg=vision, text_cfg=text, quick_gelu=quick))
    content = {
        "whole": model.state_dict(),
        "tower": model.visual.state_dict(),
        "module": {"epoch": 3, "state_dict": {f"module.{key}": tensor for key, tensor in model.state_dict().items()}},
    }[wrapped]
    torch.save(content, tmp_path / "clip.pt")
    activation = "&activation=quick_gelu" if quick else ""
    text_tower = (
        "ln_final (2), logit_scale (1), positional_embedding (1), text_projection (1), token_embedding (1), transformer (12)"
    )
    given = {"logits": model.encode_image(photos), "left_out": None if wrapped == "tower" else text_tower}
    spec = f"{tmp_path / 'clip.pt'}?heads=4{activation}"
    assert expect(spec, layout="CLIP of open_clip", channel_mean=OPENAI_CLIP_MEAN, **given).std == OPENAI_CLIP_STD
    if quick and wrapped == "whole":  # what OpenAI's own files have besides tells their activation
        content |= {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
        torch.save(content, tmp_path / "openai.pt")
        expect(f"{tmp_path / 'openai.pt'}?heads=4", channel_mean=OPENAI_CLIP_MEAN, logits=given["logits"])


def test_other_files_are_answered_with_the_known_layouts() -> None:
    with pytest.raises(ValueError, match="holds no encoder of a known layout: it begins with a, b; known are CLIP of OpenAI, "):
        read_layout({"a": torch.ones(1), "b": torch.ones(1)})
