"""Retrieval: finding the images that show the same landmark, product or object as a query, by one descriptor an image.

The protocol is that of revisited Oxford and Paris (Radenović et al., 2018): descriptors at three scales, averaged; queries cut
out of their images; average precision by trapezoids. By default nothing is trained, and descriptors are pooled features.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from evomask.analysis.search import nearest, ranks
from evomask.data.descriptor_file import DescriptorFile, Precision
from evomask.data.retrieval_sets import RetrievalSet
from evomask.engine import distributed
from evomask.engine.loop import TrainConfig, use_bfloat16
from evomask.models.descriptors import DescriptorPooling, GlobalDescriptor
from evomask.models.encoders import Encoder
from evomask.tasks.extraction import extract_descriptors
from evomask.tasks.metric_learning import ArcFaceConfig, learn_descriptor
from evomask.tasks.retrieval_data import RetrievalDataConfig
from evomask.tasks.retrieval_result import NEAREST, SHOWN, keep_shown, measure, numbers_to_rank, write_nearest


@dataclass(frozen=True, kw_only=True)
class RetrievalConfig(RetrievalDataConfig):
    """What to search in, how images are described, and what is learnt before.

    Attributes:
        pooling: of features: the generalised mean over patch tokens (GeM), their mean, or the class token.
        power: of GeM.
        long_side: of an image at scale 1, in pixels, 1024 for Oxford and Paris. None: the encoder's.
        scales: at which an image is seen; descriptors are averaged and brought to length 1 again.
        search: torch, or faiss to find the nearest with, which finds the same. Ranks are counted by torch.
        block: descriptors of the gallery that are compared at a time.
        precision: of the descriptors that are kept on the disk.
        batch_size: images at a time that are described.
        arcface: how descriptors are learnt.
        loop: how long and how to train.
    """

    pooling: DescriptorPooling = "gem"
    power: float = 3.0
    long_side: int | None = None
    scales: tuple[float, ...] = (2**-0.5, 1.0, 2**0.5)
    search: Literal["torch", "faiss"] = "torch"
    block: int = 16_384
    precision: Precision = "float32"
    batch_size: int = 16
    arcface: ArcFaceConfig = field(default_factory=ArcFaceConfig)
    loop: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=10, batch_size=32))

    def __post_init__(self):
        super().__post_init__()
        for name in ("block", "batch_size", "long_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1, not {value}")
        if self.loop.parallel != "ddp":
            raise ValueError(
                "torch does not shard the steps of SGD that descriptors are learnt by: leave --loop.parallel at ddp"
            )
        if not self.scales or min(self.scales) <= 0:
            raise ValueError(f"--scales must be one or more factors above 0, not {self.scales}")


def retrieval(encoder: Encoder, config: RetrievalConfig, out: Path, resume: bool = False) -> dict[str, float]:
    """How well images are found by descriptors of `encoder`, in percent: mean average precision `map`, and more.

    `mp1`, `mp5` and `mp10` are the mean precision of the best few, `chance` is the `map` of a random order. Of revisited
    Oxford and Paris all of these are there as `easy_map`, `medium_map`, `hard_map` and so on.

    Args:
        encoder: its model is changed where it is fine-tuned.
        config: what and how.
        out: the folder, for descriptors, nearest.jsonl, the pictures' images, and checkpoints where it is fine-tuned.
        resume: go on from the newest checkpoint.

    Raises:
        Stopped: a signal came; everything is saved.
        ValueError: images that cannot be used, an encoder that cannot see images of these sizes.
    """
    settings = config.loop
    with distributed.agreed():
        tested, source = config.sources(encoder)
    if source is None:
        descriptor = GlobalDescriptor(encoder, config.pooling, config.power)
    else:
        how = (config.pooling, config.power, config.arcface, settings, config.workers)
        descriptor = learn_descriptor(encoder, source, *how, out, resume)
    device = distributed.pick_device(settings.device)
    descriptor.to(device)
    files = [
        extract_descriptors(
            descriptor,
            images,
            out / "descriptors" / f"{title}.npy",
            title,
            boxes=boxes,
            long_side=config.long_side or max(encoder.image_size),
            scales=config.scales,
            precision=config.precision,
            batch_size=config.batch_size,
            workers=config.workers,
            device=device,
            half=use_bfloat16(settings.precision, device),
        )
        for title, images, boxes in (("queries", tested.queries, tested.boxes), ("gallery", tested.gallery, None))
    ]
    queries, gallery = files
    return distributed.from_first(lambda: _search(tested, queries, gallery, config, device, out))


def _search(
    tested: RetrievalSet,
    queries: DescriptorFile,
    gallery: DescriptorFile,
    config: RetrievalConfig,
    device: torch.device,
    out: Path,
) -> dict[str, float]:
    """In the first process alone: search, write down what was found, and say how good it is."""
    how = {"block": config.block, "device": device}
    looked_for = numbers_to_rank(tested)
    found = ranks(queries, gallery, looked_for, **how)
    best, _ = nearest(queries, gallery, NEAREST, faiss=config.search == "faiss", **how)
    write_nearest(out / "nearest.jsonl", tested, best, looked_for, found)
    keep_shown(out / SHOWN, tested, best)
    return measure(tested, looked_for, found)
