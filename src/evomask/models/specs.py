"""What a user says about an encoder after its name, as in `weights.pth?heads=4&image_size=96x128`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from evomask.models.pretrained import ACTIVATIONS


@dataclass(frozen=True, kw_only=True)
class SpecOptions:
    """What may stand after the question mark.

    Attributes:
        image_size: pixels, one number or HEIGHTxWIDTH; positions are interpolated to it where they are for another.
        mean, std: of a channel of images in [0, 1]: a number a channel, with commas, or one for all.
        heads: attention heads, where a file of weights has an unusual width.
        activation: in the MLPs, where a file of weights has another than is usual: gelu, quick_gelu.
    """

    image_size: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    heads: int | None = None
    activation: str | None = None

    def of_file(self) -> dict[str, Any]:
        """What only a file of weights may be told."""
        only = {"heads": self.heads, "activation": self.activation}
        return {name: value for name, value in only.items() if value is not None}


def parse_spec(spec: str) -> tuple[str, SpecOptions]:
    """The name, and what is said about it after a question mark.

    Raises:
        ValueError: an option that there is not, or a value that it cannot have.
    """
    name, mark, query = spec.partition("?")
    if not mark or Path(spec).exists():
        return spec, SpecOptions()
    given = dict(parse_qsl(query, keep_blank_values=True))
    unknown = given.keys() - READERS.keys()
    if unknown or not given:
        raise ValueError(f"{spec}: after the question mark stand {', '.join(READERS)}, as in {name}?image_size=224")
    options: dict[str, Any] = {}
    for option, text in given.items():
        try:
            options[option] = READERS[option](text)
        except ValueError as error:
            raise ValueError(f"{spec}: {option} cannot be {text!r}") from error
    return name, SpecOptions(**options)


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    return _positive(height), _positive(width or height)


def _positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _channels(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(","))


def _deviations(text: str) -> tuple[float, ...]:
    if min(_channels(text)) <= 0:
        raise ValueError
    return _channels(text)


def _activation(text: str) -> str:
    if text not in ACTIVATIONS.values():
        raise ValueError
    return text


READERS: dict[str, Callable[[str], Any]] = {
    "image_size": _size,
    "mean": _channels,
    "std": _deviations,
    "heads": _positive,
    "activation": _activation,
}
"""Each field of SpecOptions, and how its text is read."""
