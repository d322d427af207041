"""Evolved masks on BEiT, from the size that one machine can afford to the published one.

Optimisation is that of the public code (microsoft/unilm, beit/README.md, "Pre-training BEiT-base on ImageNet-1k", and the
defaults of beit/run_beit_pretraining.py and beit/transforms.py): AdamW with betas 0.9 and 0.98, weight decay 0.05, 2,048 images
a step, a rate of 1.5e-3 that falls to 1e-5 along a cosine, 10 epochs of warm-up, gradients clipped at 3, stochastic depth 0.1,
layer scale from 0.1, 75 of 196 patches hidden, in blocks of at least 16, crops of 8% to 100% of an image. The tokenizer is
DALL-E's (`--host.tokenizer hf:facebook/flava-image-codebook`), or one of your own.

The paper says that optimisation is that of the original works, but also gives betas of 0.9 and 0.95, a mask ratio of 0.75 and
224 px for all (Section V-B). Where the two differ this is BEiT's, but for the epochs, of which there are 300 instead of 800.
"""

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.engine.pretrain import DataConfig, MaskingConfig, PretrainConfig
from evomask.models.beit import BEiTConfig
from evomask.models.beit_encoder import BEiTEncoderConfig

RATIO = 0.383
"""75 of 196 patches."""

CROPS = DataConfig(crop_scale=(0.08, 1.0))


def _beit(recipe: str, width: int | None = None, heads: int | None = None) -> PretrainConfig:
    """BEiT-B/16, or as wide as another ViT. timm has no smaller BEiT by name."""
    return PretrainConfig(
        recipe=recipe,
        host=BEiTConfig(encoder=BEiTEncoderConfig(width=width, heads=heads, drop_path=0.1)),
        masking=MaskingConfig(ratio=RATIO),
        data=CROPS,
        optim=OptimConfig(base_lr=1.875e-4, min_lr=1.25e-6, warmup_epochs=10, betas=(0.9, 0.98), clip_grad=3.0),
        train=TrainConfig(epochs=300, batch_size=2048),
    )


def vit_tiny_beit() -> PretrainConfig:
    """BEiT on ViT-Ti/16 at 224 px. Not in the paper; for small data sets.

    Command: `evomask pretrain vit_tiny_beit --data.root FOLDER --host.tokenizer TOKENIZER`

    AdamW (0.9, 0.98), a rate of 1.5e-3 at a batch of 2,048 (microsoft/unilm, beit/README.md; see `beit.py`).
    """
    return _beit("vit_tiny_beit", width=192, heads=3)


def vit_small_beit() -> PretrainConfig:
    """BEiT on ViT-S/16 at 224 px, 300 epochs. For the paper's rows see `paper.py`.

    Command: `evomask pretrain vit_small_beit --data.root IMAGENET/train --host.tokenizer hf:facebook/flava-image-codebook`

    AdamW (0.9, 0.98), a rate of 1.5e-3 at a batch of 2,048 (microsoft/unilm, beit/README.md; see `beit.py`).
    """
    return _beit("vit_small_beit", width=384, heads=6)


def vit_base_beit() -> PretrainConfig:
    """BEiT on ViT-B/16 at 224 px, 300 epochs. BEiT itself: 800 epochs with `--masking.strategy block`.

    Command: `evomask pretrain vit_base_beit --data.root IMAGENET/train --host.tokenizer hf:facebook/flava-image-codebook`

    AdamW (0.9, 0.98), a rate of 1.5e-3 at a batch of 2,048 (microsoft/unilm, beit/README.md; see `beit.py`).
    """
    return _beit("vit_base_beit")


def vit_tiny_beit_112() -> PretrainConfig:
    """BEiT on ViT-Tiny with patches of 8 px at 112 px: the paper's grid of 14 x 14 at a size that one machine can afford.

    Command: `evomask pretrain vit_tiny_beit_112 --data.root FOLDER --host.tokenizer TOKENIZER`

    The tokenizer is first made by `evomask train-tokenizer --data.root FOLDER --out TOKENIZER`. Crops are of 20% to 100%, as
    MAE's: of 8% of so small an image little is left.
    """
    encoder = BEiTEncoderConfig(image_size=(112, 112), patch_size=8, width=192, heads=3)
    return PretrainConfig(
        recipe="vit_tiny_beit_112",
        host=BEiTConfig(encoder=encoder),
        masking=MaskingConfig(ratio=RATIO),
        optim=OptimConfig(base_lr=1e-3, warmup_epochs=5, betas=(0.9, 0.98), clip_grad=3.0),
        train=TrainConfig(epochs=100, batch_size=128),
    )
