"""Detection as the paper trains it, and at a size for a CPU.

The paper (Section V-B): Mask R-CNN with a ViT in place of its backbone, "following" MAE, four maps from four equal parts of the
blocks, AdamW with weight decay 0.05, and "the standard 1x and 3x schedules": a rate of 3e-4, divided by 10 after 3/4 and after
11/12 of the epochs. It gives neither batch size nor image size nor a warm-up, speaks of 30 epochs beside the two schedules, and
does not say which of these its figures are of. Chosen here: a batch of 16, the usual one, so that 1x is 12 epochs and 3x 36;
large-scale jitter (0.1 to 2.0) in a square of 1,024 px and 0.1 of stochastic depth, as in the detection benchmark that MAE's
authors use (Li et al., 2021); about 1,100 steps of warm-up, 0.15 epochs; and rates that fall by 0.75 from block to block.
"""

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.models.detector import DetectorConfig
from evomask.tasks.detection import DetectionConfig


def detection_1x() -> DetectionConfig:
    """Mask R-CNN on COCO as in the paper, for 12 epochs: 39.16 box AP with a ViT-S of 800 epochs of evolved masks (Table I).

    Command: `evomask evaluate detection_1x --encoder RUN --train COCO/annotations/instances_train2017.json
    --train-images COCO/train2017 --val COCO/annotations/instances_val2017.json --val-images COCO/val2017`

    Reported by the paper, box AP of ViT-S by epochs of pretraining (Tables I and V):

                  100    200    400    800   1,600  2,400
        evolved  34.62  36.51  37.45  39.16  40.85  41.08
        random   32.70  34.42  35.21  38.73
        block    31.78  33.15  35.08  38.91
        grid     36.11  36.21  35.19  34.62

    From random weights: 19.31. Whether it is 1x or 3x it does not say; for what else was chosen see `recipes/detection.py`. Not
    run here at this scale.
    """
    return DetectionConfig()


def detection_3x() -> DetectionConfig:
    """Mask R-CNN on COCO as in the paper, for 36 epochs; for what the paper reports see `detection_1x`.

    Command: `evomask evaluate detection_3x --encoder RUN --train COCO/annotations/instances_train2017.json
    --train-images COCO/train2017 --val COCO/annotations/instances_val2017.json --val-images COCO/val2017`
    """
    return DetectionConfig(loop=TrainConfig(epochs=36, batch_size=16))


def detection_small() -> DetectionConfig:
    """Mask R-CNN with narrow heads on a few hundred small images, for a CPU: whole images of 128 px, each seen 60 times.

    Command: `evomask evaluate detection_small --encoder RUN --train small/train.json --train-images small/train --val
    small/val.json --val-images small/val`

    It is to learn its training images by heart; `train_box_AP50` says whether it did. Results: `docs/results/detection.md`.
    """
    return DetectionConfig(
        scenes=100,
        image_size=128,
        scale=(1.0, 1.0),
        flip=False,
        drop_path=0.0,
        layer_decay=0.9,
        validate_every=20,
        judge_training=True,
        workers=0,
        detector=DetectorConfig(channels=48, anchor_scale=4, proposals=100, rpn_samples=64, roi_samples=32),
        optim=OptimConfig(base_lr=64e-3, warmup_epochs=1, betas=(0.9, 0.999), clip_grad=1.0, decay="steps"),
        loop=TrainConfig(epochs=60, batch_size=4),
    )
