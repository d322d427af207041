"""Pictures of what was found, and of patches that match."""

import torch
from matplotlib.colors import to_hex
from matplotlib.patches import ConnectionPatch, Rectangle

from evomask.figures.matches import matched_patches
from evomask.figures.retrieval import found_images
from evomask.figures.style import FAINT, GREEN, VERMILLION


def test_right_wrong_and_junk_have_frames_of_their_own_and_queries_none() -> None:
    images = torch.randint(0, 255, (2, 4, 3, 8, 8), dtype=torch.uint8)
    figure = found_images(images, [["right", "wrong", "junk"], ["wrong", "right", "right"]])
    frames = [
        [to_hex(patch.get_edgecolor()).upper() for patch in ax.patches if isinstance(patch, Rectangle)] for ax in figure.axes
    ]
    assert frames == [[], [GREEN], [VERMILLION], [FAINT], [], [VERMILLION], [GREEN], [GREEN]]
    assert [ax.get_title() for ax in figure.axes[:4]] == ["query", "1", "2", "3"]
    shown = figure.axes[5].images[0].get_array()
    assert shown is not None and shown.shape == (8, 8, 3)


def test_lines_join_the_middles_of_patches() -> None:
    originals = torch.zeros(2, 1, 8, 12, dtype=torch.uint8)
    figure = matched_patches(originals, torch.tensor([0, 5]), torch.tensor([4, 2]), (2, 3), torch.tensor([0.9, 0.3]))
    lines = [artist for artist in figure.artists if isinstance(artist, ConnectionPatch)]
    assert [(line.xy1, line.xy2) for line in lines] == [((0.5, 0.5), (1.5, 1.5)), ((2.5, 1.5), (2.5, 0.5))]
    assert lines[0].get_alpha() > lines[1].get_alpha()  # type: ignore[operator]
    assert not matched_patches(originals, torch.zeros(0), torch.zeros(0), (2, 3), torch.zeros(0)).artists
