"""Our MAE against transformers' ViTMAEForPreTraining: same weights, same noise, same loss and prediction in float32."""

import re

import pytest
import torch
from torch import Tensor

from evomask.masking import RandomMasking
from evomask.models.export import export_transformers
from evomask.models.mae import MAE, MAEConfig
from evomask.models.vit import ViTConfig

transformers = pytest.importorskip("transformers", minversion="5.0")

TOLERANCE = 1e-5


def build_theirs(**options):
    config = transformers.ViTMAEConfig(
        image_size=48,
        patch_size=8,
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=256,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=128,
        layer_norm_eps=1e-6,
        **options,
    )
    theirs = transformers.ViTMAEForPreTraining(config).eval()
    # transformers 5.23 leaves the positions of a fresh model at zero (a loaded one has those of its file): fill them with its
    # own functions.
    theirs.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    theirs.vit.embeddings.initialize_weights()
    theirs.decoder.initialize_weights(num_patches=36)
    return theirs


def build_ours(norm_pix_loss: bool, num_channels: int = 3) -> MAE:
    vit = ViTConfig(
        name="vit_tiny_patch16_224", image_size=(48, 48), patch_size=8, width=64, depth=3, heads=4, in_chans=num_channels
    )
    config = MAEConfig(encoder=vit, decoder_width=32, decoder_depth=2, decoder_heads=2, normalise_pixels=norm_pix_loss)
    return config.build().eval()


def shake(model: torch.nn.Module) -> None:
    """Weights far from initial ones, so that no zero bias and no unit norm hides a wrong name."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))


NAMES = [
    (r"vit\.embeddings\.cls_token", r"encoder.cls_token"),
    (r"vit\.embeddings\.position_embeddings", r"encoder.pos_embed"),
    (r"vit\.embeddings\.patch_embeddings\.projection", r"encoder.patch_embed.proj"),
    (r"vit\.layernorm\.", r"encoder.norm."),
    (r"vit\.layers\.(\d+)", r"encoder.blocks.\1"),
    (r"decoder\.decoder_layers\.(\d+)", r"decoder_blocks.\1"),
    (r"layernorm_before", r"norm1"),
    (r"layernorm_after", r"norm2"),
    (r"attention\.o_proj", r"attn.proj"),
    (r"decoder\.decoder_pred", r"decoder_head"),
    (r"decoder\.(decoder_embed|decoder_norm|mask_token)", r"\1"),
]


def as_ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict under our names: written for this test, apart from the export's own table."""
    ours: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        ours[name] = tensor
    for name in [name for name in ours if "attention.q_proj" in name]:
        parts = [ours.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        ours[name.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
    del ours["decoder.decoder_pos_embed"]  # ours are no part of the state: always sines and cosines
    return ours


def assert_same_outputs(ours: MAE, theirs, num_channels: int) -> None:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(4, num_channels, 48, 48, generator=generator)
    noise = torch.rand(4, 36, generator=generator)
    mask = RandomMasking(0.75)(noise, ours.grid)
    with torch.no_grad():
        expected = theirs(images, noise=noise)
        output = ours(images, ours.embed(images), mask)
    assert torch.equal(mask.masked, expected.mask.bool())
    logits = expected.logits[mask.masked].view_as(output.prediction)
    torch.testing.assert_close(output.prediction, logits, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(output.loss, expected.loss, atol=TOLERANCE, rtol=0)
    assert logits.std() > 0.1


@pytest.mark.parametrize("norm_pix_loss", [True, False])
@pytest.mark.parametrize("num_channels", [3, 1])
def test_their_weights_in_our_model(norm_pix_loss, num_channels):
    theirs = build_theirs(norm_pix_loss=norm_pix_loss, num_channels=num_channels)
    shake(theirs)
    ours = build_ours(norm_pix_loss, num_channels)
    ours.load_state_dict(as_ours(theirs.state_dict()))
    assert_same_outputs(ours, theirs, num_channels)


@pytest.mark.parametrize("norm_pix_loss", [True, False])
@pytest.mark.parametrize("num_channels", [3, 1])
def test_our_weights_in_their_model(tmp_path, norm_pix_loss, num_channels):
    ours = build_ours(norm_pix_loss, num_channels)
    shake(ours)
    folder = tmp_path / "transformers"
    export_transformers(ours, folder, (0.5,) * num_channels, (0.25,) * num_channels, mask_ratio=0.75)
    theirs, loading = transformers.ViTMAEForPreTraining.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    assert theirs.config.norm_pix_loss == norm_pix_loss
    assert_same_outputs(ours, theirs.eval(), num_channels)


def test_positions_are_theirs():
    theirs, ours = build_theirs(), build_ours(norm_pix_loss=True)
    torch.testing.assert_close(ours.encoder.pos_embed, theirs.vit.embeddings.position_embeddings, atol=1e-7, rtol=0)
    torch.testing.assert_close(ours.decoder_positions, theirs.decoder.decoder_pos_embed[:, 1:], atol=1e-7, rtol=0)
    assert not theirs.decoder.decoder_pos_embed[:, 0].any()


def test_attention_is_theirs():
    theirs = build_theirs(attn_implementation="eager", mask_ratio=0.0)
    shake(theirs)
    ours = build_ours(norm_pix_loss=True)
    ours.load_state_dict(as_ours(theirs.state_dict()))
    images = torch.randn(2, 3, 48, 48, generator=torch.Generator().manual_seed(1))
    order = torch.arange(36).expand(2, -1) / 36  # nothing is hidden, and nothing is shuffled
    with torch.no_grad():
        maps = theirs.vit(images, noise=order, output_attentions=True).attentions
        expected = torch.stack(maps)[..., 1:, 1:].mean(dim=(0, 2))
        torch.testing.assert_close(ours.affinity(ours.embed(images)), expected, atol=1e-6, rtol=0)
