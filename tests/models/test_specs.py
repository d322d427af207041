"""What may be said about an encoder after its name."""

from pathlib import Path

import pytest

from evomask.models.specs import SpecOptions, parse_spec


@pytest.mark.parametrize(
    ("spec", "name", "options"),
    [
        ("weights.pth", "weights.pth", SpecOptions()),
        ("weights.pth?heads=4", "weights.pth", SpecOptions(heads=4)),
        ("timm:vit?image_size=96", "timm:vit", SpecOptions(image_size=(96, 96))),
        (
            "a/b.pt?image_size=96x128&activation=quick_gelu",
            "a/b.pt",
            SpecOptions(image_size=(96, 128), activation="quick_gelu"),
        ),
        ("w.pth?mean=0.5&std=0.1,0.2", "w.pth", SpecOptions(mean=(0.5,), std=(0.1, 0.2))),
    ],
)
def test_names_and_options(spec: str, name: str, options: SpecOptions) -> None:
    assert parse_spec(spec) == (name, options)


def test_a_path_with_a_question_mark(tmp_path: Path) -> None:
    path = tmp_path / "why?.pth"
    path.touch()
    assert parse_spec(str(path)) == (str(path), SpecOptions())


@pytest.mark.parametrize("query", ["", "size=3", "heads", "heads=4&width=8"])
def test_unknown_options_are_answered_with_the_known(query: str) -> None:
    line = r"^w\.pth\?.*: after the question mark stand image_size, mean, std, heads, activation, as in w\.pth\?image_size=224$"
    with pytest.raises(ValueError, match=line if query != "heads" else "heads cannot be ''"):
        parse_spec(f"w.pth?{query}")


@pytest.mark.parametrize(
    ("option", "text"),
    [("heads", "0"), ("heads", "x"), ("image_size", "x32"), ("image_size", "-8"), ("image_size", "8x8x8"),
     ("mean", "a,b"), ("std", "0.1,0"), ("activation", "swish")],
)  # fmt: skip
def test_values_that_cannot_be(option: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"^w\.pth\?{option}={text}: {option} cannot be '{text}'$"):
        parse_spec(f"w.pth?{option}={text}")
