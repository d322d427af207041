"""The resampler against transformers' own, with the same weights."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from evomask.models.resampler import PerceiverResampler, ResamplerConfig

WIDTH, SIZE = 24, ResamplerConfig(latents=5, depth=3, heads=3, head_width=7, activation="relu")


def as_idefics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under the names that Idefics has for them."""
    names = {
        "attn.norm_tokens": "0.context_layer_norm",
        "attn.norm_latents": "0.latents_layer_norm",
        "attn.query": "0.q_proj",
        "attn.key": "0.k_proj",
        "attn.value": "0.v_proj",
        "attn.out": "0.output_proj",
        "mlp.0": "1.ln",
        "mlp.1": "1.fc",
        "mlp.3": "1.c_proj",
    }
    renamed = {}
    for name, tensor in state.items():
        for ours, theirs in names.items():
            name = name.replace(f".{ours}.", f".{theirs}.")
        renamed[name.replace("norm.", "layer_norm.") if name.startswith("norm.") else name] = tensor
    return renamed


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_latents_equal_those_of_idefics_with_the_same_weights(activation) -> None:
    perceiver = pytest.importorskip("transformers.models.idefics.perceiver")
    ours = PerceiverResampler(WIDTH, ResamplerConfig(latents=5, depth=3, heads=3, head_width=7, activation=activation))
    for parameter in ours.parameters():  # also norms, which begin as the identity
        nn.init.normal_(parameter, std=0.3)
    config = SimpleNamespace(
        perceiver_config=SimpleNamespace(qk_layer_norms_perceiver=False), vision_config=SimpleNamespace(embed_dim=WIDTH)
    )
    theirs = perceiver.IdeficsPerceiverResampler(config, WIDTH, depth=3, n_heads=3, head_dim=7, n_latents=5)
    theirs.load_state_dict(as_idefics(ours.state_dict()))
    if activation == "gelu":  # as GVT has it
        for block in theirs.blocks:
            block[1].act = nn.GELU()
    tokens = torch.randn(2, 11, WIDTH)
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-5)


def test_latents_begin_as_large_as_is_said() -> None:
    resampler = PerceiverResampler(256, ResamplerConfig(latents=64, depth=1, latent_std=0.02))
    assert resampler.latents.std().item() == pytest.approx(0.02, rel=0.05)


def test_latents_do_not_depend_on_the_order_of_tokens_and_are_of_their_number() -> None:
    resampler = PerceiverResampler(WIDTH, SIZE)
    tokens = torch.randn(2, 11, WIDTH)
    latents = resampler(tokens)
    assert latents.shape == (2, 5, WIDTH)
    torch.testing.assert_close(resampler(tokens.flip(1)), latents)
    assert not torch.allclose(resampler(tokens.roll(1, dims=0)), latents), "each image has its own"


def test_a_size_that_cannot_be_names_its_option() -> None:
    with pytest.raises(ValueError, match=r"--resampler\.head-width must be at least 1, not 0"):
        ResamplerConfig(head_width=0)
    with pytest.raises(ValueError, match=r"--resampler\.latent-std must be above 0"):
        ResamplerConfig(latent_std=0)
