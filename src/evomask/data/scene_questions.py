"""Questions about a scene, and their answers."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Question:
    """A question, as a language model is asked it, and its answer in lower case."""

    text: str
    answer: str
    kind: Literal["exists", "count", "open"]


def ask_about(counts: dict[str, int], categories: list[str], main: str, colours: dict[str, str], place: str) -> list[Question]:
    """All questions about a scene; GVT's wording where it has one (see Wang et al., 2023).

    Args:
        counts: objects of each category that is there.
        categories: all there could be.
        main: the category of the largest object.
        colours: of each of its parts, by the part's name.
        place: the class of the scene.
    """
    exists = [Question(f"Does {name} exist in the image?", "yes" if name in counts else "no", "exists") for name in categories]
    how_many = [Question(f"How many {name} are there in the image?", str(number), "count") for name, number in counts.items()]
    opened = [
        Question("What is the largest object in the image?", main, "open"),
        Question("What place is this?", place, "open"),
    ]
    opened += [Question(f"What colour is the {part} of the {main}?", colour, "open") for part, colour in colours.items()]
    return exists + how_many + opened
