"""Descriptors of all images of a source, at several scales, written to a file as they are made."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Subset

from evomask.data.descriptor_file import DescriptorFile, DescriptorWriter, Precision
from evomask.data.images import ImageSource
from evomask.data.loader import in_order
from evomask.data.revisited import Box
from evomask.data.scaled_images import ScaledImages
from evomask.engine import distributed
from evomask.engine.pretrain import normalise
from evomask.engine.progress import ProgressBar
from evomask.models.any_size import AnySize
from evomask.models.descriptors import GlobalDescriptor, merged


@torch.no_grad()
def extract_descriptors(
    descriptor: GlobalDescriptor,
    source: ImageSource,
    path: Path,
    title: str,
    *,
    boxes: Sequence[Box] | None = None,
    long_side: int,
    scales: Sequence[float],
    precision: Precision,
    batch_size: int,
    workers: int,
    device: torch.device,
    half: bool,
) -> DescriptorFile:
    """Describe every image; several processes share the work, and the first one writes. No more than a batch is held.

    Args:
        descriptor: on the device.
        source: the images.
        path: of the .npy file.
        title: for the progress bar.
        boxes: of each image, the part to describe; None: all.
        long_side: of a whole image at scale 1, in pixels.
        scales: at which an image is seen; their descriptors are averaged.
        precision: of the numbers in the file.
        batch_size: images at a time, in each process; only those of one size are computed together.
        workers: processes that load images, for each process.
        device: to compute on.
        half: autocast to bfloat16.
    """
    descriptor.eval()
    encoder = descriptor.encoder
    any_size = AnySize(encoder)
    images = ScaledImages(source, boxes, long_side, scales, any_size.unit)
    share = distributed.own_share(len(images))
    own = Subset(images, [index % len(images) for index in share])

    def describe(batch: list[list[Tensor]]) -> Tensor:
        at_scales = [torch.empty(len(batch), descriptor.width) for _ in scales]
        for made, of_scale in zip(at_scales, zip(*batch, strict=True), strict=True):
            by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
            for number, image in enumerate(of_scale):
                by_size[image.shape[-2], image.shape[-1]].append(number)
            for size, numbers in by_size.items():
                pixels = torch.stack([of_scale[number] for number in numbers]).to(device)
                with torch.autocast(device.type, torch.bfloat16) if half else nullcontext():
                    found = descriptor.describe(any_size(*size), normalise(pixels, encoder.mean, encoder.std))
                made[numbers] = found.float().cpu()
        return merged(at_scales)

    writer = distributed.from_first(lambda: DescriptorWriter(path, len(images), descriptor.width, precision))
    done = 0
    batches = in_order(own, batch_size, workers, list)
    with closing(ProgressBar(title, len(own))) as bar:
        while done < len(own):
            with distributed.agreed():
                found = describe(next(batches))
            everywhere = distributed.gathered(found)
            with distributed.agreed():
                if distributed.rank() == 0:
                    for process, rows in enumerate(everywhere.split(len(found))):
                        first = process * len(share) + done
                        if first < len(images):
                            writer.write(first, rows[: len(images) - first])
            done += len(found)
            bar.update(done)
    return distributed.from_first(lambda: DescriptorFile(path))
