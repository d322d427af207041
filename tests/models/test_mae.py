"""The MAE host: what it hides, what its loss counts, what it learns. Equality with a public MAE is shown in parity/."""

from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from evomask.masking import Mask, RandomMasking
from evomask.models.mae import MAE, MAEConfig, QueriedBlock
from evomask.models.vit import ViTConfig, build_vit, sincos_positions

ROWS, COLUMNS, PATCH = 3, 5, 8
PATCHES = ROWS * COLUMNS


def build(*, normalise_pixels: bool = True, **vit: Any) -> Any:
    given: dict[str, Any] = {
        "image_size": (ROWS * PATCH, COLUMNS * PATCH),
        "patch_size": PATCH,
        "width": 48,
        "depth": 2,
        "heads": 3,
    } | vit
    config = MAEConfig(
        encoder=ViTConfig(name="vit_tiny_patch16_224", **given),
        decoder_width=32,
        decoder_depth=2,
        decoder_heads=2,
        normalise_pixels=normalise_pixels,
    )
    torch.manual_seed(0)
    return config.build()


def random_images(host: Any, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, host.encoder.in_chans, *host.encoder.patch_embed.img_size, generator=generator)


def random_mask(batch: int = 2, ratio: float = 0.75) -> Mask:
    noise = torch.rand(batch, PATCHES, generator=torch.Generator().manual_seed(2))
    return RandomMasking(ratio)(noise, (ROWS, COLUMNS))


def mask_of(*patches: int) -> Mask:
    masked = torch.zeros(1, PATCHES, dtype=torch.bool)
    masked[0, list(patches)] = True
    return Mask(masked, len(patches))


def corner(patch: int) -> tuple[slice, slice]:
    """Where a patch lies in the image, counted by hand."""
    row, column = divmod(patch, COLUMNS)
    return slice(row * PATCH, (row + 1) * PATCH), slice(column * PATCH, (column + 1) * PATCH)


VITS = [
    {},
    {"class_token": False},
    {"registers": 3},
    {"class_token": False, "registers": 2},
    {"qk_norm": True},
    {"in_chans": 1},
    {"in_chans": 4},
    {"name": "vit_small_patch14_reg4_dinov2", "registers": 4},
]


@pytest.mark.parametrize("vit", VITS, ids=str)
def test_shapes_and_a_gradient_for_every_trainable_parameter(vit):
    given = {"image_size": (ROWS * PATCH, COLUMNS * PATCH), "patch_size": PATCH, "width": 48, "depth": 2, "heads": 3}
    config = ViTConfig(**({"name": "vit_tiny_patch16_224"} | given | vit))
    host = MAE(build_vit(config), decoder_width=32, decoder_depth=1, decoder_heads=2)
    images, mask = random_images(host), random_mask()
    tokens = host.embed(images)
    output = host(images, tokens, mask)
    prefix = config.class_token + config.registers

    assert host.grid == (ROWS, COLUMNS)
    assert tokens.shape == (2, PATCHES, 48)
    assert host.forward_encoder(tokens, mask).shape == (2, prefix + PATCHES - 11, 48)  # int(15 * 0.75) = 11 are hidden
    assert output.prediction.shape == (2, 11, PATCH * PATCH * config.in_chans)
    assert output.loss.shape == ()

    output.loss.backward()
    silent = [
        name
        for name, parameter in host.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    assert silent == []
    assert [name for name, parameter in host.named_parameters() if not parameter.requires_grad] == ["encoder.pos_embed"]


def test_affinity_is_between_patches_and_leaves_no_gradient():
    host = build(registers=3)
    affinity = host.affinity(host.embed(random_images(host)))
    assert affinity.shape == (2, PATCHES, PATCHES)
    assert not affinity.requires_grad
    assert (affinity.sum(dim=-1) < 1).all(), "class token and registers took a share"


@pytest.mark.parametrize("vit", VITS[:4], ids=str)
def test_encoder_does_not_see_hidden_patches(vit):
    host = build(**vit).eval()
    mask = mask_of(2, 7, 14)
    images = random_images(host, batch=1)
    seen = host.forward_encoder(host.embed(images), mask)
    for patch in range(PATCHES):
        changed = images.clone()
        changed[..., *corner(patch)] += 1
        same = torch.equal(host.forward_encoder(host.embed(changed), mask), seen)
        assert same == (patch in (2, 7, 14)), f"patch {patch}"


@pytest.mark.parametrize("normalise_pixels", [True, False])
@pytest.mark.parametrize("vit", VITS[:3], ids=str)
def test_loss_counts_hidden_patches_and_no_others(vit, normalise_pixels):
    host = build(normalise_pixels=normalise_pixels, **vit).eval()
    mask = mask_of(0, 6, 7)
    images = random_images(host, batch=1)
    prediction = host(images, host.embed(images), mask).prediction
    loss = host.forward_loss(images, prediction, mask)
    for patch in range(PATCHES):
        target = images.clone()
        target[..., *corner(patch)] = target[..., *corner(patch)].flip(-1)
        same = torch.equal(host.forward_loss(target, prediction, mask), loss)
        assert same == (patch not in (0, 6, 7)), f"patch {patch}"


@pytest.mark.parametrize("normalise_pixels", [True, False])
def test_loss_by_hand(normalise_pixels):
    host = build(normalise_pixels=normalise_pixels)
    images, mask = random_images(host), random_mask()
    prediction = host(images, host.embed(images), mask).prediction.detach()
    errors = []
    for image, predicted, masked in zip(images.double(), prediction.double(), mask.masked, strict=True):
        for number, patch in enumerate(masked.nonzero().flatten().tolist()):
            pixels = image[:, *corner(patch)]
            if normalise_pixels:
                pixels = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            errors.append((predicted[number].view(PATCH, PATCH, 3) - pixels.permute(1, 2, 0)).square().mean())
    assert len(errors) == 2 * 11
    expected = torch.stack(errors).mean().float()
    torch.testing.assert_close(host.forward_loss(images, prediction, mask), expected, atol=1e-6, rtol=0)


class AllPlaces(nn.Module):
    """In place of a decoder's last block: passes on what stands at every place."""

    def forward(self, x, asked):
        return x[:, 3:]


def test_decoder_puts_every_visible_patch_in_its_place():
    # With no blocks and a head that passes on, what the decoder gives at a place is what stands there.
    host = build(registers=2)
    host.decoder_blocks, host.decoder_norm, host.decoder_head = nn.Sequential(AllPlaces()), nn.Identity(), nn.Identity()
    host.decoder_embed = nn.Identity()
    mask = random_mask()
    numbers = torch.arange(2 * PATCHES, dtype=torch.float32).view(2, PATCHES, 1).expand(-1, -1, 32)
    visible = numbers.gather(1, mask.keep_indices.unsqueeze(-1).expand(-1, -1, 32))
    latent = torch.cat((torch.full((2, 3, 32), -1.0), visible), dim=1)
    with torch.no_grad():
        host.mask_token.fill_(-2)
        placed = host.forward_decoder(latent, mask) - sincos_positions((ROWS, COLUMNS), 32)
    expected = numbers.masked_fill(mask.masked.unsqueeze(-1), -2)
    torch.testing.assert_close(placed, expected, atol=1e-5, rtol=0)


def test_queried_block_gives_what_the_whole_block_gives_at_the_places_asked_for():
    torch.manual_seed(0)
    whole, queried = Block(32, 4, qkv_bias=True), QueriedBlock(32, 4, qkv_bias=True)
    queried.load_state_dict(whole.state_dict())
    x, asked = torch.randn(3, 9, 32), torch.tensor([[8, 0, 4], [1, 2, 3], [5, 5, 7]])
    expected = whole(x)[torch.arange(3).unsqueeze(1), asked]
    torch.testing.assert_close(queried(x, asked), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("counted", [PATCHES + 1, PATCHES - 1])
def test_mask_that_counts_a_class_token_is_refused(counted):
    host = build()
    images = random_images(host)
    mask = RandomMasking(0.75)(torch.rand(2, counted), (1, counted))
    with pytest.raises(ValueError, match="a class token does not count"):
        host(images, host.embed(images), mask)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_patchify_is_row_by_row_with_channels_last_and_unpatchify_its_inverse(channels):
    host = build(in_chans=channels)
    images = random_images(host)
    patches = host.patchify(images)
    assert patches.shape == (2, PATCHES, PATCH * PATCH * channels)
    for patch in range(PATCHES):
        assert torch.equal(patches[:, patch], images[..., *corner(patch)].permute(0, 2, 3, 1).flatten(1))
    assert torch.equal(host.unpatchify(patches), images)


@pytest.mark.parametrize("normalise_pixels", [True, False])
def test_reconstruction_keeps_visible_pixels_and_shows_the_prediction_elsewhere(normalise_pixels):
    host = build(normalise_pixels=normalise_pixels).eval()
    images, mask = random_images(host, batch=1) * 3 + 1, mask_of(1, 9)
    restored = host.reconstruct(images, mask)
    predicted = host(images, host.embed(images), mask).prediction.detach()
    for patch in range(PATCHES):
        true, shown = images[0, :, *corner(patch)], restored[0, :, *corner(patch)]
        if patch not in (1, 9):
            assert torch.equal(shown, true)
            continue
        expected = predicted[0, (1, 9).index(patch)].view(PATCH, PATCH, 3).permute(2, 0, 1)
        if normalise_pixels:
            expected = expected * true.std() + true.mean()
        torch.testing.assert_close(shown, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("vit", [{"registers": 3, "qk_norm": True}, {"class_token": False}], ids=str)
def test_every_parameter_is_initialised(vit):
    host = build(**vit)
    assert all(parameter.isfinite().all() for parameter in host.parameters())

    covered = [module for module in host.modules() if isinstance(module, nn.Linear)]
    claimed = [parameter for module in covered for parameter in module.parameters()]
    encoder = host.encoder
    claimed += [encoder.patch_embed.proj.weight, host.mask_token, encoder.pos_embed]
    claimed += [token for token in (encoder.cls_token, encoder.reg_token) if token is not None]
    with torch.no_grad():
        for parameter in claimed:
            parameter.fill_(torch.nan)
    host._initialise()
    assert all(parameter.isfinite().all() for parameter in host.parameters())


def test_initial_weights_are_those_of_mae():
    host = build()
    for layer in (host.encoder.blocks[0].attn.qkv, host.encoder.patch_embed.proj, host.decoder_head):
        weight = layer.weight.flatten(1)
        limit = (6 / sum(weight.shape)) ** 0.5  # Xavier: uniform in +- sqrt(6 / (fan in + fan out))
        assert 0.95 * limit < weight.abs().max() <= limit
        torch.testing.assert_close(weight.std().item(), limit / 3**0.5, rtol=0.05, atol=0)
    assert not host.encoder.blocks[0].attn.qkv.bias.any()
    assert torch.equal(host.encoder.pos_embed[0, 1:], sincos_positions((ROWS, COLUMNS), 48))
    assert 0.01 < host.mask_token.std() < 0.03


def test_positions_stay_as_they_are_in_training():
    host = build()
    before = [host.encoder.pos_embed.clone(), host.decoder_positions.clone()]
    optimizer = torch.optim.AdamW(host.parameters(), lr=0.1, weight_decay=0.5)
    images, mask = random_images(host), random_mask()
    host(images, host.embed(images), mask).loss.backward()
    optimizer.step()
    assert torch.equal(host.encoder.pos_embed, before[0])
    assert torch.equal(host.decoder_positions, before[1])


def test_encoder_is_a_timm_model_that_works_alone():
    host = build().eval()
    images = random_images(host)
    assert type(host.encoder) is VisionTransformer
    assert host.encoder(images).shape == (2, 48)
    assert host.encoder.forward_features(images).shape == (2, 1 + PATCHES, 48)
    with torch.no_grad():  # nothing hidden: the encoder of MAE is that of timm
        seen = host.forward_encoder(host.embed(images), Mask(torch.zeros(2, PATCHES, dtype=torch.bool), 0))
        torch.testing.assert_close(seen, host.encoder.forward_features(images), atol=1e-5, rtol=0)


def test_a_batch_can_be_learnt():
    host = build()
    images, mask = random_images(host), random_mask()
    optimizer = torch.optim.AdamW(host.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        loss = host(images, host.embed(images), mask).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_heads": 5}, "5 heads do not divide a decoder width of 32"),
        ({"decoder_width": 30, "decoder_heads": 3}, "multiple of 4, not 30"),
        ({"decoder_depth": 0}, "must be at least 1"),
        ({"attention_blocks": 0}, "must be at least 1"),
    ],
)
def test_decoder_that_cannot_be_built_is_said(options, message):
    encoder: Any = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=0)
    with pytest.raises(ValueError, match=message):
        MAE(encoder, **({"decoder_width": 32, "decoder_heads": 2} | options))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: timm.create_model("vit_tiny_patch16_224", img_size=40, depth=1), "do not divide an image of 40 x 40 px"),
        (lambda: timm.create_model("resnet18"), "expected a timm VisionTransformer, not a ResNet"),
    ],
)
def test_encoder_that_does_not_fit_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        MAE(make())
