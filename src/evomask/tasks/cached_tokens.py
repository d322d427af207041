"""The patch tokens of the images that questions are about, computed once: a frozen encoder always makes the same of them."""

import logging
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from evomask.data.loader import in_order
from evomask.data.question_images import WholeQuestionImages
from evomask.data.questions import Questions
from evomask.engine import distributed
from evomask.engine.pretrain import normalise
from evomask.engine.progress import ProgressBar
from evomask.models.encoders import Encoder

logger = logging.getLogger("evomask")


@dataclass(frozen=True, eq=False)
class CachedTokens:
    """Patch tokens of images, by question.

    Attributes:
        of_images: (images, N, D) float16, on the CPU; each image's once, however many questions are about it.
        rows: (questions,) long, the row of each question's image.
    """

    of_images: Tensor
    rows: Tensor

    def of(self, questions: Tensor) -> Tensor:
        """(B,) numbers of questions -> (B, N, D) float32, on the CPU."""
        return self.of_images[self.rows[questions]].float()


@torch.no_grad()
def cache_tokens(
    encoder: Encoder, questions: Questions, *, device: torch.device, workers: int, half: bool, batch_size: int = 64
) -> CachedTokens:
    """The tokens of all images that questions are about, seen whole; computed by all processes, and kept by each.

    Args:
        encoder: on the device.
        questions: about images.
        device: to compute on.
        workers: processes that load images, for each process.
        half: autocast to bfloat16.
        batch_size: images at a time, in each process.

    Raises:
        ValueError: an image cannot be read.
    """
    _, first, rows = np.unique(questions.image_of, return_index=True, return_inverse=True)
    own = [int(first[number % len(first)]) for number in distributed.own_share(len(first))]
    dataset = Subset(WholeQuestionImages(questions, encoder.image_size), own)
    parts: list[Tensor] = []
    done = 0
    with distributed.agreed(), closing(ProgressBar("training images", len(own))) as bar:
        for images_uint8, _ in in_order(dataset, batch_size, workers):
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                tokens = encoder.patch_tokens(normalise(images_uint8.to(device), encoder.mean, encoder.std))
            if not parts:
                size = 2 * tokens[0].numel() * len(first) / 2**20
                logger.info("the tokens of %d images take %.0f MiB of memory in each process", len(first), size)
            parts.append(tokens.to("cpu", torch.float16))
            done += len(tokens)
            bar.update(done)
    return CachedTokens(distributed.gathered(torch.cat(parts))[: len(first)], torch.from_numpy(rows))
