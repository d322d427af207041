"""Evaluations by retrieval: the paper's, and one for a CPU."""

from evomask.engine.loop import TrainConfig
from evomask.tasks.metric_learning import ArcFaceConfig
from evomask.tasks.retrieval import RetrievalConfig


def retrieval_landmarks() -> RetrievalConfig:
    """Landmark retrieval as in the paper's Table X: learnt on Google Landmarks v2 as DELG does, tested on revisited Oxford.

    Command: `evomask evaluate retrieval_landmarks --encoder RUN --train GLDV2/train_clean.csv --revisited
    roxford5k/gnd_roxford5k.pkl`, and the same with `rparis6k/gnd_rparis6k.pkl`; it takes GPUs and torchrun.

    Reported by the paper, mAP in %, Medium on Oxford and Paris, Hard on Oxford and Paris: its own 59.06, 79.43, 33.24, 58.87;
    MAE 55.38, 76.55, 30.74, 50.06; DeiT 56.17, 72.40, 31.09, 54.46; DINO 51.53, 75.13, 24.15, 52.03; CLIP 45.42, 58.68,
    15.32, 39.22. In Table IV, of ViT-S after 300 epochs, on Oxford: evolved depth 57.41, shallow 57.11, deep 55.07.

    From the paper are the 6 million steps of SGD, momentum 0.9, at a rate that falls linearly to 0. Of DELG are GeM, ArcFace,
    the rate of 0.01, the batch of 32 (with which 6 million steps are 122 epochs) and crops of 512 px. Scales and the long side
    are usual. Nothing says whether the paper did likewise, nor which encoder Table X is of. None of it has been run.
    """
    return RetrievalConfig(
        finetune=True,
        long_side=1024,
        arcface=ArcFaceConfig(image_size=(512, 512)),
        loop=TrainConfig(epochs=122, batch_size=32),
    )


def retrieval_small() -> RetrievalConfig:
    """Retrieval with a small encoder, fine-tuned for ten epochs: minutes on a CPU for a thousand images of 64 px.

    Command: `evomask evaluate retrieval_small --encoder RUN --labels products/labels.csv --half first`; `--finetune False`
    for the same encoder as it is.

    Short, at a high rate, with narrow descriptors, plain crops and one scale. What came out for small encoders:
    `docs/results/retrieval.md`.
    """
    return RetrievalConfig(
        finetune=True,
        scales=(1.0,),
        batch_size=64,
        arcface=ArcFaceConfig(width=256, lr=0.05, crop_scale=(0.35, 1.0)),
        loop=TrainConfig(epochs=10, batch_size=32),
    )
