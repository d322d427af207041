"""Questions about images, with their answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evomask.data.images import ImageSource
from evomask.data.sampler import sample_seed
from evomask.data.scenes import Scenes
from evomask.data.spread import spread


@dataclass(frozen=True, eq=False)
class Questions:
    """Questions by number, each about one image of a source.

    Attributes:
        images: what they are about.
        image_of: (n,) int64, the number of each question's image.
        texts: each question, "what colour is the car?".
        answers: to each, one or more; of several annotators that of each.
        kinds: what kind of answer each one asks for, by which accuracy is also reported; all "" where there are no kinds.
    """

    images: ImageSource
    image_of: NDArray[np.int64]
    texts: Sequence[str]
    answers: Sequence[tuple[str, ...]]
    kinds: Sequence[str]

    def __len__(self) -> int:
        """The number of questions."""
        return len(self.texts)

    def answer(self, index: int) -> str:
        """What most annotators say, the first of equals: what a model learns to answer."""
        return Counter(self.answers[index]).most_common(1)[0][0]

    def some(self, count: int | None) -> "Questions":
        """At most so many, from all over the set; None for all."""
        if count is None or count >= len(self):
            return self
        chosen = spread(count, len(self))
        parts = {name: [getattr(self, name)[index] for index in chosen] for name in ("texts", "answers", "kinds")}
        return replace(self, image_of=self.image_of[chosen], **parts)

    def with_shuffled_images(self, seed: int) -> "Questions":
        """The same questions, those about one image all asked about another one, always the same and never the right one.

        Raises:
            ValueError: all questions are about a single image.
        """
        asked = np.unique(self.image_of)
        if len(asked) < 2:
            raise ValueError("all questions are about one image, so images cannot be shuffled: --shuffled False")
        circle = np.random.default_rng(sample_seed(seed)).permutation(asked)
        other = dict(zip(circle.tolist(), np.roll(circle, 1).tolist(), strict=True))
        return replace(self, image_of=np.array([other[image] for image in self.image_of.tolist()]))


def scene_questions(scenes: Scenes) -> Questions:
    """All questions about the embedded scenes: which objects there are, how many, and open ones."""
    asked = [(number, question) for number in range(len(scenes)) for question in scenes.scene(number).questions]
    return Questions(
        images=scenes,
        image_of=np.array([number for number, _ in asked]),
        texts=[question.text for _, question in asked],
        answers=[(question.answer,) for _, question in asked],
        kinds=[question.kind for _, question in asked],
    )
