"""Evaluations by classification whose published settings are not the defaults of their task."""

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.tasks.finetune import FinetuneConfig


def finetune_vit_large() -> FinetuneConfig:
    """Fine-tuning of a ViT-L as MAE's on ImageNet-1K: 50 epochs, layer decay 0.75, drop path 0.2.

    Command: `evomask evaluate finetune_vit_large --encoder RUN --train IMAGENET/train --val IMAGENET/val`

    Source: facebookresearch/mae, FINETUNE.md; 85.9% top-1 there, after 1,600 epochs of MAE. What is not named here is as for
    ViT-B, the task's defaults.
    """
    optim = OptimConfig(base_lr=1e-3, min_lr=2.5e-7, warmup_epochs=5, betas=(0.9, 0.999))
    return FinetuneConfig(drop_path=0.2, layer_decay=0.75, optim=optim, loop=TrainConfig(epochs=50, batch_size=1024))


def finetune_few_labels() -> FinetuneConfig:
    """Fine-tuning on a tenth of the labels of a small data set, in minutes on a CPU: plain crops, short, at a high rate.

    Command: `evomask evaluate finetune_few_labels --encoder RUN --train labelled/train --val labelled/val`

    A hundred images a class are seen six times, so nothing is mixed or distorted. What came out for small encoders:
    `docs/results/pretraining.md`.
    """
    return FinetuneConfig(
        label_share=0.1,
        drop_path=0.0,
        layer_decay=0.75,
        crop_scale=(0.35, 1.0),
        distortion=None,
        random_erasing=0.0,
        mixup=0.0,
        cutmix=0.0,
        validate_every=6,
        optim=OptimConfig(base_lr=4e-3, min_lr=2.5e-7, warmup_epochs=1, betas=(0.9, 0.999)),
        loop=TrainConfig(epochs=6, batch_size=32),
    )
