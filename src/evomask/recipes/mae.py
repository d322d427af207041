"""Evolved masks on MAE, from a demonstration on a laptop to the paper's ViT-B."""

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.engine.pretrain import DataConfig, MonitorConfig, PretrainConfig
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig


def demo() -> PretrainConfig:
    """A small ViT on the embedded scenes: minutes on two CPU cores.

    Command: `evomask demo`
    """
    return PretrainConfig(
        recipe="demo",
        host=MAEConfig(
            encoder=ViTConfig(name="vit_tiny_patch16_224", image_size=(64, 64), patch_size=8, width=128, depth=4, heads=4),
            decoder_width=64,
            decoder_depth=2,
            decoder_heads=4,
        ),
        # As many scenes as there is time to draw, rather than fewer several times over: 12 epochs, for the masks to evolve in.
        data=DataConfig(scenes=5_000, workers=1, crop_scale=(0.7, 1.0)),
        optim=OptimConfig(base_lr=16e-3, warmup_epochs=1, clip_grad=1.0),  # the rate itself is an eighth of that
        train=TrainConfig(epochs=12, batch_size=32),
        monitor=MonitorConfig(every=4, images=300),
    )


def vit_tiny_mae_112() -> PretrainConfig:
    """ViT-Tiny with patches of 8 px at 112 px: the paper's grid of 14 x 14 at a size that one machine can afford.

    Command: `evomask pretrain vit_tiny_mae_112 --data.root FOLDER`
    """
    return PretrainConfig(
        recipe="vit_tiny_mae_112",
        host=MAEConfig(
            encoder=ViTConfig(name="vit_tiny_patch16_224", image_size=(112, 112), patch_size=8),
            decoder_width=128,
            decoder_depth=2,
            decoder_heads=4,
        ),
        optim=OptimConfig(base_lr=1e-3, warmup_epochs=5, clip_grad=1.0),
        train=TrainConfig(epochs=100, batch_size=128),
    )


def _paper(recipe: str, vit: str, patch_size: int = 16) -> PretrainConfig:
    """MAE as published (He et al., 2022, appendix A), for the paper's 300 epochs (Section V-B)."""
    return PretrainConfig(
        recipe=recipe,
        host=MAEConfig(encoder=ViTConfig(name=vit, patch_size=patch_size)),
        train=TrainConfig(epochs=300, batch_size=4096),
    )


def vit_tiny_mae() -> PretrainConfig:
    """ViT-Ti/16 at 224 px. Not in the paper; for small data sets.

    Command: `evomask pretrain vit_tiny_mae --data.root FOLDER`
    """
    return _paper("vit_tiny_mae", "vit_tiny_patch16_224")


def vit_small_mae() -> PretrainConfig:
    """ViT-S/16 at 224 px, 300 epochs: the paper's ablations. For each of its rows see `paper.py`.

    Command: `evomask pretrain vit_small_mae --data.root IMAGENET/train`
    """
    return _paper("vit_small_mae", "vit_small_patch16_224")


def vit_base_mae() -> PretrainConfig:
    """ViT-B/16 at 224 px, 300 epochs.

    Command: `evomask pretrain vit_base_mae --data.root IMAGENET/train`
    """
    return _paper("vit_base_mae", "vit_base_patch16_224")


def vit_large_mae() -> PretrainConfig:
    """ViT-L/16 at 224 px. Not in the paper.

    Command: `evomask pretrain vit_large_mae --data.root IMAGENET/train`
    """
    return _paper("vit_large_mae", "vit_large_patch16_224")


def vit_huge_mae() -> PretrainConfig:
    """ViT-H/14 at 224 px: a grid of 16 x 16. Not in the paper.

    Command: `evomask pretrain vit_huge_mae --data.root IMAGENET/train`
    """
    return _paper("vit_huge_mae", "vit_huge_patch14_224", patch_size=14)
