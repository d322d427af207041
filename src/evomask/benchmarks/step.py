"""A training step of MAE with random masks: evomask against transformers and lightly, same sizes, precision and batch."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from evomask.benchmarks.comparison import Comparison, compare
from evomask.benchmarks.overhead import ModelConfig, update
from evomask.engine import distributed
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.pretrain import DataConfig, PretrainStep, normalise
from evomask.masking import RandomMasking
from evomask.models.vit import build_vit


@dataclass(frozen=True, kw_only=True)
class StepConfig(ModelConfig):
    """A step of MAE: forward, backward, clipping, AdamW. The same fused AdamW serves all.

    Attributes:
        compile: time each model compiled by torch.compile too.
    """

    compile: bool = False


def compare_steps(config: StepConfig) -> list[Comparison]:
    """One table, in milliseconds a step. Peers get images that are normalised already, in their favour."""
    device = distributed.pick_device(config.device)
    data = DataConfig()
    host_config = config.host_config()
    rows, columns = host_config.build().grid
    batch = config.batch(device, rows * columns)
    images = normalise(batch[0], data.mean, data.std)

    def ours() -> tuple[nn.Module, Callable[[], Tensor]]:
        host = host_config.build()
        step = PretrainStep(host, RandomMasking(), data.mean, data.std)
        return host, lambda: step(batch, 0.0).loss

    def transformers() -> tuple[nn.Module, Callable[[], Tensor]]:
        model = _transformers_mae(config)
        return model, lambda: model(images).loss

    def lightly() -> tuple[nn.Module, Callable[[], Tensor]]:
        model = _lightly_mae(config)
        return model, lambda: model(images)

    def candidate(build: Callable[[], tuple[nn.Module, Callable[[], Tensor]]], compiled: bool) -> Callable[[], None]:
        torch.manual_seed(0)
        model, loss_of = build()
        model.to(device).train()
        if compiled:
            model.compile()
        optimizer = build_adamw(model, OptimConfig())

        def step() -> None:
            with config.autocast(device):
                loss = loss_of()
            update(loss, model, optimizer)

        return step

    makers = {"evomask": ours, "transformers": transformers, "lightly": lightly}
    candidates = {name: candidate(maker, compiled=False) for name, maker in makers.items()}
    if config.compile:
        candidates |= {f"{name}, compiled": candidate(maker, compiled=True) for name, maker in makers.items()}
    return [compare(config.title(device), candidates, device, config.turns)]


def _transformers_mae(config: StepConfig) -> nn.Module:
    try:
        from transformers import ViTMAEConfig, ViTMAEForPreTraining
    except ImportError as error:
        raise ValueError("transformers is what a step is compared with: pip install 'evomask[bench]'") from error
    sizes = config.host_config()
    vit = build_vit(sizes.encoder)
    return ViTMAEForPreTraining(
        ViTMAEConfig(
            hidden_size=vit.embed_dim,
            num_hidden_layers=len(vit.blocks),
            num_attention_heads=vit.blocks[0].attn.num_heads,  # pyright: ignore
            intermediate_size=4 * vit.embed_dim,
            patch_size=vit.patch_embed.patch_size[0],
            decoder_hidden_size=sizes.decoder_width,
            decoder_num_hidden_layers=sizes.decoder_depth,
            decoder_num_attention_heads=sizes.decoder_heads,
            decoder_intermediate_size=4 * sizes.decoder_width,
            mask_ratio=0.75,
            norm_pix_loss=True,
        )
    )


def _lightly_mae(config: StepConfig) -> nn.Module:
    """MAE put together of lightly's modules as its documentation does."""
    try:
        from lightly.models import utils
        from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
    except ImportError as error:
        raise ValueError("lightly is what a step is compared with: pip install 'evomask[bench]'") from error

    class LightlyMAE(nn.Module):
        def __init__(self):
            super().__init__()
            vit = build_vit(config.host_config().encoder)
            self.patch_size = vit.patch_embed.patch_size[0]
            self.backbone = MaskedVisionTransformerTIMM(vit=vit)
            sizes = config.host_config()
            self.decoder = MAEDecoderTIMM(
                num_patches=vit.patch_embed.num_patches,
                patch_size=self.patch_size,
                embed_dim=vit.embed_dim,
                decoder_embed_dim=sizes.decoder_width,
                decoder_depth=sizes.decoder_depth,
                decoder_num_heads=sizes.decoder_heads,
                mlp_ratio=4.0,
                proj_drop_rate=0.0,
                attn_drop_rate=0.0,
            )

        def forward(self, images: Tensor) -> Tensor:
            size = (len(images), self.backbone.sequence_length)
            keep, hidden = utils.random_token_mask(size=size, mask_ratio=0.75, device=images.device)
            encoded = self.decoder.embed(self.backbone.encode(images=images, idx_keep=keep))
            tokens = utils.repeat_token(self.decoder.mask_token, size)
            tokens = utils.set_at_index(tokens, keep, encoded.type_as(tokens))
            predicted = self.decoder.predict(utils.get_at_index(self.decoder.decode(tokens), hidden))
            patches = utils.patchify(images, self.patch_size)
            return nn.functional.mse_loss(predicted, utils.get_at_index(patches, hidden - 1))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # lightly is about to rename its decoder
        return LightlyMAE()
