"""Weights of files and folders: what is built for them, what is said about them, and what is refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.beit import Beit
from timm.models.resnet import BasicBlock, ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from evomask.engine.checkpoint import write_checkpoint
from evomask.models.architecture import HEADS
from evomask.models.encoders import load_encoder
from evomask.models.mae import MAEConfig
from evomask.models.pretrained import load_file
from evomask.models.vit import ViTConfig

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 3, "num_classes": 0}
NORMALISED = {"mean": [0.4, 0.5], "std": [0.1, 0.2]}


def save(state: dict[str, Tensor], path: Path) -> str:
    save_file({key: tensor.contiguous() for key, tensor in state.items()}, path)
    return str(path)


def one_line(caught: pytest.ExceptionInfo[ValueError]) -> str:
    [line] = str(caught.value).splitlines()
    return line


def test_a_file_is_accounted_for(tmp_path: Path) -> None:
    state = dict(VisionTransformer(**VIT).state_dict())
    del state["blocks.1.norm1.bias"]
    state |= {"blocks.2.extra": torch.ones(1), "mask_token": torch.ones(1)}
    loaded = load_file(Path(save(state, tmp_path / "w.safetensors")), {"heads": 3})
    assert loaded.account == (
        "ViT of timm, DeiT, DINO or MAE: loaded 53 of 54 tensors; missing: blocks.1.norm1.bias; unexpected: blocks.2.extra;"
        " left out: mask_token (1); 3 heads, gelu"
    )


def test_what_fits_by_less_than_nine_tenths_is_refused(tmp_path: Path) -> None:
    state = dict(VisionTransformer(**VIT).state_dict())
    wider = VisionTransformer(**VIT | {"embed_dim": 96}).state_dict()
    state |= {key: tensor for key, tensor in wider.items() if key.startswith("blocks.3.")}  # 12 of 54 tensors
    with pytest.raises(ValueError, match="looks like ViT of timm") as caught:
        load_encoder(f"{save(state, tmp_path / 'w.safetensors')}?heads=3")
    named = "blocks.3.attn.proj.bias, blocks.3.attn.proj.weight, blocks.3.attn.qkv.bias, blocks.3.attn.qkv.weight,"
    named += " blocks.3.mlp.fc1.bias and 7 more"
    assert one_line(caught) == (
        f"{tmp_path}/w.safetensors looks like ViT of timm, DeiT, DINO or MAE, but only 42 of 54 tensors fit the"
        f" VisionTransformer that it should be; missing: {named}; unexpected: {named}"
    )


def test_tensors_that_no_model_has_count_too(tmp_path: Path) -> None:
    state = dict(VisionTransformer(**VIT).state_dict()) | {f"blocks.0.adapter.{n}": torch.ones(1) for n in range(7)}
    with pytest.raises(ValueError, match="only 54 of 61 tensors fit"):
        load_encoder(f"{save(state, tmp_path / 'w.safetensors')}?heads=3")


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    path = save(ResNet(BasicBlock, (1, 1, 1, 1)).state_dict(), tmp_path / "resnet.safetensors")
    with pytest.raises(ValueError, match=r"resnet\.safetensors holds no encoder of a known layout: it begins with ") as caught:
        load_encoder(path)
    assert "MAE of facebookresearch" in one_line(caught)


def test_a_layout_without_what_tells_its_size(tmp_path: Path) -> None:
    state = small_swin().state_dict()
    del state["layers.0.blocks.0.mlp.fc1.weight"]
    with pytest.raises(ValueError, match=r"looks like Swin, but it has no layers\.0\.blocks\.0\.mlp\.fc1\.weight$"):
        load_encoder(save(state, tmp_path / "w.safetensors"))


def small_swin() -> SwinTransformer:
    return SwinTransformer(img_size=32, patch_size=2, embed_dim=16, depths=(1,), num_heads=(2,), window_size=2)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # in timm
def test_swin_at_a_size_that_cuts_its_windows_is_that_of_timm_resized(tmp_path: Path) -> None:
    torch.manual_seed(0)
    swin = SwinTransformer(
        img_size=32, patch_size=2, embed_dim=16, depths=(2, 2), num_heads=(2, 2), window_size=2, num_classes=0
    )
    for name, parameter in swin.named_parameters():
        if "bias_table" in name:
            torch.nn.init.normal_(parameter)
    path = save(dict(swin.state_dict()), tmp_path / "w.safetensors")
    encoder = load_encoder(f"{path}?image_size=4")  # a grid of 2 x 2, of 1 x 1 in the second stage
    swin.set_input_size(img_size=(4, 4))
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(encoder.model.eval()(images), swin.eval()(images))


def test_swin_with_absolute_positions_is_refused(tmp_path: Path) -> None:
    path = save(dict(small_swin().state_dict()) | {"absolute_pos_embed": torch.ones(1, 256, 16)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="looks like Swin, but it has absolute positions, which timm's Swin has not"):
        load_encoder(path)


@pytest.mark.parametrize(
    ("part", "what"),
    [
        ("patch_embed.backbone.stem.conv.weight", "a convolutional network before"),
        ("attn_pool.latent", "attention pooling as"),
        ("rope_embed.periods", "rotary positions as"),
    ],
)
def test_parts_that_would_be_misread_are_refused(tmp_path: Path, part: str, what: str) -> None:
    path = save(dict(VisionTransformer(**VIT).state_dict()) | {part: torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=f"it has {what}.* read by timm:NAME alone"):
        load_encoder(f"{path}?heads=3")


def test_heads_are_those_of_the_width_or_named(tmp_path: Path) -> None:
    path = save(VisionTransformer(**VIT | {"embed_dim": 192, "depth": 1}).state_dict(), tmp_path / "tiny.safetensors")
    assert load_encoder(path).plain_vit().blocks[0].attn.num_heads == 3  # pyright: ignore
    assert load_encoder(f"{path}?heads=6").plain_vit().blocks[0].attn.num_heads == 6  # pyright: ignore
    assert all(width % heads == 0 for width, heads in HEADS.items())
    unusual = save(VisionTransformer(**VIT).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"heads a width of 48 has: name them, as in .*heads=4"):
        load_encoder(unusual)
    with pytest.raises(ValueError, match="5 heads do not divide its width of 48"):
        load_encoder(f"{unusual}?heads=5")


@pytest.mark.parametrize("family", [VisionTransformer, Beit])
def test_images_that_are_not_square(tmp_path: Path, family: Any) -> None:
    more = {"use_rel_pos_bias": True, "use_abs_pos_emb": False} if family is Beit else {}
    model = family(**VIT | more | {"img_size": (24, 48)}).eval()
    path = save(model.state_dict(), tmp_path / "w.safetensors")
    images = torch.randn(2, 3, 24, 48)
    torch.testing.assert_close(load_encoder(f"{path}?heads=3&image_size=24x48").model(images), model(images))
    with pytest.raises(ValueError, match=r"name the size of its images, as in .*image_size=HEIGHTxWIDTH"):
        load_encoder(f"{path}?heads=3")


@pytest.mark.parametrize("family", [VisionTransformer, Beit])
def test_without_positions_the_image_size_is_asked_for(tmp_path: Path, family: Any) -> None:
    model = family(**VIT, **({"pos_embed": "none"} if family is VisionTransformer else {"use_abs_pos_emb": False})).eval()
    path = save(model.state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"nothing tells the size of its images: name it, as in .*image_size=224"):
        load_encoder(f"{path}?heads=3")
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(load_encoder(f"{path}?heads=3&image_size=32").model(images), model(images))


def test_other_channels_need_mean_and_std(tmp_path: Path) -> None:
    path = save(VisionTransformer(**VIT, in_chans=4).state_dict(), tmp_path / "w.safetensors") + "?heads=3"
    with pytest.raises(ValueError, match="does not say how its images are normalised: name it, as in"):
        load_encoder(path)
    with pytest.raises(ValueError, match="sees 4 channels, but mean and std are given of 3 and 4"):
        load_encoder(f"{path}&mean=0,0,0&std=1,1,1,1")
    encoder = load_encoder(f"{path}&mean=0.25&std=0.5")
    assert (encoder.in_chans, encoder.mean, encoder.std) == (4, (0.25,) * 4, (0.5,) * 4)


def test_only_gelu_where_timm_has_no_other(tmp_path: Path) -> None:
    path = save(Beit(**VIT).state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="timm's BEiT and Swin have the activation gelu, not quick_gelu"):
        load_encoder(f"{path}?heads=3&activation=quick_gelu")


def run_of(run: Path) -> MAEConfig:
    """A folder as `evomask pretrain` makes it, and its host; four heads where a width of 192 has three."""
    encoder = {"name": "vit_tiny_patch16_224", "image_size": [24, 40], "patch_size": 8, "in_chans": 2, "depth": 1, "heads": 4}
    config = MAEConfig(
        encoder=ViTConfig(**encoder | {"image_size": (24, 40)}), decoder_width=16, decoder_depth=1, decoder_heads=2
    )
    run.mkdir()
    record = {"command": "evomask pretrain x", "config": {"host": {"encoder": encoder}, "data": NORMALISED}}
    (run / "config.json").write_text(json.dumps(record))
    return config


def save_checkpoint(run: Path, host: torch.nn.Module) -> Path:
    return write_checkpoint(run, 100, {f"model.{name}": tensor for name, tensor in host.state_dict().items()}, keep=1)


@pytest.mark.parametrize("spec", ["run/checkpoints/step_00000100", "."])
def test_checkpoints_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: str) -> None:
    config = run_of(tmp_path / "run")
    host = config.build().eval()
    folder = save_checkpoint(tmp_path / "run", host)
    monkeypatch.chdir(folder if spec == "." else tmp_path)
    encoder = load_encoder(spec)
    assert (encoder.mean, encoder.std, encoder.image_size) == ((0.4, 0.5), (0.1, 0.2), (24, 40))
    images = torch.randn(2, 2, 24, 40)
    torch.testing.assert_close(encoder.features(images), host.encoder.forward_features(images)[:, 1:].mean(dim=1))


def test_a_checkpoint_that_lacks_a_file(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "run", run_of(tmp_path / "run").build())
    next(folder.glob("shard-*")).unlink()
    with pytest.raises(ValueError, match="step_00000100 is no whole checkpoint: a file is damaged or missing"):
        load_encoder(str(folder))


def test_checkpoints_that_their_run_does_not_describe(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path / "run", run_of(tmp_path / "run").build())
    (tmp_path / "run" / "config.json").write_text('{"command": "x", "config": {"host": {"encoder": {"name": "vit"}}}}')
    with pytest.raises(ValueError, match=r"the config\.json of its run does not describe the encoder of .*step_00000100"):
        load_encoder(str(folder))


def transformers_folder(folder: Path, **config: Any) -> Path:
    """A ViT of transformers, without transformers."""
    block = "encoder.layer.0"
    layers = {"layernorm_before": (48,), "layernorm_after": (48,), "attention.output.dense": (48, 48)}
    layers |= {f"attention.attention.{part}": (48, 48) for part in ("query", "key", "value")}
    layers |= {"intermediate.dense": (96, 48), "output.dense": (48, 96)}
    state = {f"{block}.{name}.weight": torch.randn(shape) for name, shape in layers.items()}
    state |= {f"{block}.{name}.bias": torch.randn(shape[0]) for name, shape in layers.items()}
    state |= {"layernorm.weight": torch.ones(48), "layernorm.bias": torch.zeros(48)}
    state |= {
        f"embeddings.{name}": torch.randn(1, count, 48) for name, count in {"cls_token": 1, "position_embeddings": 16}.items()
    }
    patches = {"weight": torch.randn(48, 3, 8, 8), "bias": torch.randn(48)}
    state |= {f"embeddings.patch_embeddings.projection.{kind}": tensor for kind, tensor in patches.items()}
    folder.mkdir()
    save(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", "num_attention_heads": 6} | config))
    return folder


def test_config_and_processor_of_a_transformers_folder_are_heeded(tmp_path: Path) -> None:
    """15 positions beside the class token's are no square: 24 x 40 px."""
    folder = transformers_folder(tmp_path / "vit", image_size=[24, 40], layer_norm_eps=1e-3, hidden_act="gelu_new")
    processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    encoder = load_encoder(str(folder))
    vit: Any = encoder.plain_vit()
    assert (encoder.mean, encoder.std, encoder.image_size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (24, 40))
    assert (vit.blocks[0].attn.num_heads, vit.norm.eps) == (6, 1e-3)
    assert re.search("tanh", repr(vit.blocks[0].mlp.act), re.IGNORECASE)
    beside = load_encoder(str(folder / "model.safetensors"))  # its config.json is beside it
    assert beside.mean == encoder.mean


def test_activations_that_timm_has_not(tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "vit", image_size=[24, 40], hidden_act="swish_of_mine")
    with pytest.raises(ValueError, match="vit has the activation 'swish_of_mine', which is none of gelu, "):
        load_encoder(str(folder))
