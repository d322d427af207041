"""Evolved masks on SimMIM, on ViT and on Swin, from the size that one machine can afford to the published one.

Optimisation is that of the public code (microsoft/SimMIM, configs/vit_base__800ep and configs/swin_base__100ep, and the
defaults of config.py), whose rates are for a batch of 512: AdamW with betas 0.9 and 0.999, weight decay 0.05, 2,048 images a
step, 10 epochs of warm-up, gradients clipped at 5, crops of 67% to 100% of an image, 60% of it hidden. There the ViT-B's rate
falls once, by ten, after 700 of 800 epochs; here it follows a cosine, as the Swin-B's does in both.

The paper says that optimisation is that of the original works, but also gives betas of 0.9 and 0.95, a mask ratio of 0.75 and
224 px for all (Section V-B). Where the two differ this is SimMIM's, but for the epochs, of which there are 300.
"""

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.engine.pretrain import DataConfig, MaskingConfig, PretrainConfig
from evomask.models.simmim import SimMIMConfig, SwinSimMIMConfig
from evomask.models.swin import SwinConfig
from evomask.models.vit import ViTConfig

RATIO = 0.6
CROPS = DataConfig(crop_scale=(0.67, 1.0))


def _vit(recipe: str, vit: str) -> PretrainConfig:
    """A rate of 1e-4 and 0.1 of stochastic depth."""
    return PretrainConfig(
        recipe=recipe,
        host=SimMIMConfig(encoder=ViTConfig(name=vit, drop_path=0.1)),
        masking=MaskingConfig(ratio=RATIO),
        data=CROPS,
        optim=OptimConfig(base_lr=0.5e-4, min_lr=2.5e-6, warmup_epochs=10, betas=(0.9, 0.999), clip_grad=5.0),
        train=TrainConfig(epochs=300, batch_size=2048),
    )


def _swin(recipe: str, swin: str) -> PretrainConfig:
    """A rate of 2e-4 and no stochastic depth, at 192 px in windows of 6: masks of 12 x 12 cells of 16 px."""
    return PretrainConfig(
        recipe=recipe,
        host=SwinSimMIMConfig(encoder=SwinConfig(name=swin, image_size=(192, 192), window=6)),
        masking=MaskingConfig(ratio=RATIO),
        data=CROPS,
        optim=OptimConfig(base_lr=1e-4, min_lr=5e-6, warmup_epochs=10, betas=(0.9, 0.999), clip_grad=5.0),
        train=TrainConfig(epochs=300, batch_size=2048),
    )


def vit_tiny_simmim() -> PretrainConfig:
    """SimMIM on ViT-Ti/16 at 224 px. Not in the paper; for small data sets.

    Command: `evomask pretrain vit_tiny_simmim --data.root FOLDER`

    AdamW (0.9, 0.999), a rate of 1e-4 at a batch of 512 (microsoft/SimMIM, configs/vit_base__800ep; see `simmim.py`).
    """
    return _vit("vit_tiny_simmim", "vit_tiny_patch16_224")


def vit_small_simmim() -> PretrainConfig:
    """SimMIM on ViT-S/16 at 224 px, 300 epochs. For the paper's rows see `paper.py`.

    Command: `evomask pretrain vit_small_simmim --data.root IMAGENET/train`

    AdamW (0.9, 0.999), a rate of 1e-4 at a batch of 512 (microsoft/SimMIM, configs/vit_base__800ep; see `simmim.py`).
    """
    return _vit("vit_small_simmim", "vit_small_patch16_224")


def vit_base_simmim() -> PretrainConfig:
    """SimMIM on ViT-B/16 at 224 px, 300 epochs. SimMIM itself: 800 epochs with `--masking.strategy cells`.

    Command: `evomask pretrain vit_base_simmim --data.root IMAGENET/train`

    AdamW (0.9, 0.999), a rate of 1e-4 at a batch of 512 (microsoft/SimMIM, configs/vit_base__800ep; see `simmim.py`).
    """
    return _vit("vit_base_simmim", "vit_base_patch16_224")


def swin_tiny_simmim() -> PretrainConfig:
    """SimMIM on Swin-T at 192 px, 300 epochs.

    Command: `evomask pretrain swin_tiny_simmim --data.root IMAGENET/train`

    AdamW (0.9, 0.999), a rate of 2e-4 at a batch of 512 (microsoft/SimMIM, configs/swin_base__100ep; see `simmim.py`). At the
    paper's 224 px: `--host.encoder.image-size 224 224 --host.encoder.window 7`.
    """
    return _swin("swin_tiny_simmim", "swin_tiny_patch4_window7_224")


def swin_base_simmim() -> PretrainConfig:
    """SimMIM on Swin-B at 192 px, 300 epochs. SimMIM itself: 100 epochs with `--masking.strategy cells`.

    Command: `evomask pretrain swin_base_simmim --data.root IMAGENET/train`

    AdamW (0.9, 0.999), a rate of 2e-4 at a batch of 512 (microsoft/SimMIM, configs/swin_base__100ep; see `simmim.py`). At the
    paper's 224 px: `--host.encoder.image-size 224 224 --host.encoder.window 7`.
    """
    return _swin("swin_base_simmim", "swin_base_patch4_window7_224")


def vit_tiny_simmim_112() -> PretrainConfig:
    """SimMIM on ViT-Tiny with patches of 8 px at 112 px: the paper's grid of 14 x 14 at a size that one machine can afford.

    Command: `evomask pretrain vit_tiny_simmim_112 --data.root FOLDER`
    """
    return PretrainConfig(
        recipe="vit_tiny_simmim_112",
        host=SimMIMConfig(encoder=ViTConfig(name="vit_tiny_patch16_224", image_size=(112, 112), patch_size=8)),
        masking=MaskingConfig(ratio=RATIO),
        data=CROPS,
        optim=OptimConfig(base_lr=1e-3, warmup_epochs=5, clip_grad=1.0),
        train=TrainConfig(epochs=100, batch_size=128),
    )


def swin_tiny_simmim_112() -> PretrainConfig:
    """SimMIM on a small Swin of three stages, 28, 14 and 7 tokens a side, at 112 px: masks of 14 x 14 cells of 8 px.

    Command: `evomask pretrain swin_tiny_simmim_112 --data.root FOLDER`

    It has half the width of Swin-T, and its features are as wide as those of ViT-Tiny.
    """
    swin = SwinConfig(name="swin_tiny_patch4_window7_224", image_size=(112, 112), width=48, depths=(2, 2, 6), heads=(2, 4, 8))
    return PretrainConfig(
        recipe="swin_tiny_simmim_112",
        host=SwinSimMIMConfig(encoder=swin),
        masking=MaskingConfig(ratio=RATIO),
        data=CROPS,
        optim=OptimConfig(base_lr=1e-3, warmup_epochs=5, clip_grad=1.0),
        train=TrainConfig(epochs=100, batch_size=128),
    )
