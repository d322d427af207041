"""The patch tokens of the images that questions are about, computed once: a frozen encoder always makes the same of them."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from evomask.data.question_images import WholeQuestionImages
from evomask.data.questions import Questions
from evomask.tasks.image_pass import for_all_images

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


def cache_tokens(
    look: Callable[[Tensor], Tensor],
    questions: Questions,
    image_size: tuple[int, int],
    *,
    device: torch.device,
    workers: int,
    batch_size: int = 64,
) -> CachedTokens:
    """The tokens of all images that questions are about, seen whole; computed by all processes, and kept by each.

    Args:
        look: (B, C, H, W) uint8 -> (B, N, D), a frozen encoder's patch tokens.
        questions: about images.
        image_size: height and width in pixels.
        device: see `for_all_images`.
        workers: see there.
        batch_size: see there.

    Raises:
        ValueError: an image cannot be read.
    """
    _, first, rows = np.unique(questions.image_of, return_index=True, return_inverse=True)
    images = Subset(WholeQuestionImages(questions, image_size), first.tolist())
    looks = {"device": device, "batch_size": batch_size, "workers": workers}
    tokens, _ = for_all_images(lambda images_uint8: look(images_uint8).half(), images, "training images", **looks)
    logger.info("the tokens of %d images take %.0f MiB of memory in each process", len(tokens), tokens.nbytes / 2**20)
    return CachedTokens(tokens, torch.from_numpy(rows))
