"""Evaluations by segmentation that have a name of their own."""

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.tasks.segmentation import SegmentationConfig


def segmentation_ade20k() -> SegmentationConfig:
    """UperNet on ADE20K at 512 px for 160K iterations of 16 images, as in the paper's Tables I to V, VIII and IX.

    Command: `evomask evaluate segmentation_ade20k --encoder RUN --ade20k ADEChallengeData2016`

    The paper (Section V-B) names UperNet, 160K iterations, 512 px and no multi-scale test; the rest is mmsegmentation's for
    MAE's ViT-B. Its figures: ViT-S after 800 epochs of evolved masks 42.02% mIoU, of random ones 39.31% (Table I); ViT-B 47.26%
    mIoU, 81.97% aAcc, 58.92% mAcc (Table IX). Not run by us.
    """
    return SegmentationConfig()


def segmentation_beit() -> SegmentationConfig:
    """UperNet on ADE20K with the rates that BEiT publishes for its ViT-B: 3e-5, a layer decay of 0.9.

    Command: `evomask evaluate segmentation_beit --encoder RUN --ade20k ADEChallengeData2016`

    Source: microsoft/unilm, beit/semantic_segmentation. Not run by us.
    """
    optim = OptimConfig(base_lr=4.8e-4, warmup_epochs=0.09375, decay="linear", betas=(0.9, 0.999))
    return SegmentationConfig(layer_decay=0.9, optim=optim)


def segmentation_small() -> SegmentationConfig:
    """UperNet with narrow heads on small images, in minutes on a CPU: the embedded scenes, or CamVid.

    Command: `evomask evaluate segmentation_small --encoder RUN`

    On CamVid, at 96 x 128 px: `--train camvid/images/train --train-masks camvid/annotations/train --val camvid/images/val
    --val-masks camvid/annotations/val --classes camvid.txt --ignored 11 --sides 96 128`; `benchmarks/segmentation.py` compares
    masks by that.
    """
    return SegmentationConfig(
        crop=(64, 64),
        sides=(64, 256),
        scale=(0.75, 1.5),
        stride=(43, 43),
        head_channels=32,
        auxiliary_channels=32,
        drop_path=0.0,
        layer_decay=0.75,
        scenes=600,
        iterations_per_epoch=None,
        validate_every=5,
        optim=OptimConfig(base_lr=1.6e-2, warmup_epochs=1, decay="linear", betas=(0.9, 0.999)),
        loop=TrainConfig(epochs=10, batch_size=16),
    )
