"""Images that a csv names, and Google Landmarks in its published layout."""

import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from evomask.data.decode import UnreadableImage
from evomask.data.images import DecodedImages
from evomask.data.labelled_files import ImageFiles, read_labels
from evomask.data.landmarks import Landmarks, is_landmark_list


def write_image(path: Path, grey: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 7), (grey, grey, grey)).save(path)
    return path


def test_labels_are_read_and_files_are_found_from_the_folder_of_the_csv(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,number,name\nquery/a.png,7,apple\ngallery/b.png,10,pear\n")
    rows = read_labels(tmp_path / "labels.csv")
    assert rows == [(tmp_path / "query/a.png", "7"), (tmp_path / "gallery/b.png", "10")]
    assert [label for _, label in read_labels(tmp_path / "labels.csv", "name")] == ["apple", "pear"]
    for number, (path, _) in enumerate(rows):
        write_image(path, 100 + number)
    images = DecodedImages(ImageFiles(*zip(*rows, strict=True)))
    assert images.classes == ["10", "7"]
    assert [images.classes[images.label(index) or 0] for index in range(2)] == ["7", "10"]
    assert images.image(1).unique().item() == 101


@pytest.mark.parametrize(
    ("text", "column", "reason"),
    [
        ("path,label\na,b\n", None, "needs the columns file and one with labels: its first line is 'path,label'"),
        ("file\na\n", None, "needs the columns file and one with labels"),
        ("file,label\na,b\n", "class", "needs the columns file and class"),
        ("", None, "its first line is ''"),
        ("file,label\na,b\nc\n", None, "line 3 of .* has no file or no label"),
        ("file,label\n,b\n", None, "line 2 of .* has no file or no label"),
    ],
)
def test_a_csv_of_something_else_is_named(tmp_path: Path, text: str, column: str | None, reason: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_labels(tmp_path / "labels.csv", column)


def test_bytes_that_are_no_text_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"file,label\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="no csv in UTF-8"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(ValueError, match="there is no file"):
        read_labels(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match=r"the list names 2 files that are not there, .*x.png for one"):
        ImageFiles([tmp_path / "x.png", tmp_path / "y.png"], named_by="the list")
    with pytest.raises(ValueError, match="the list names no image"):
        ImageFiles([], named_by="the list")


CLEAN = "landmark_id,images\n142820,17660ef415d37059 92b6290d571448f6\n97734,fa0c1b3e5d7a9b2c\n203092,1766aaaaaaaaaaaa\n"
ALL = 'id,url,landmark_id\n17660ef415d37059,http://x/a.jpg,1\nfa0c1b3e5d7a9b2c,"http://x/b,c.jpg",7\n'


@pytest.fixture
def landmarks(tmp_path: Path) -> Path:
    for name in ("17660ef415d37059", "92b6290d571448f6", "fa0c1b3e5d7a9b2c"):
        write_image(tmp_path / "train" / name[0] / name[1] / name[2] / f"{name}.jpg", 50)
    (tmp_path / "train_clean.csv").write_text(CLEAN)
    (tmp_path / "train.csv").write_text(ALL)
    return tmp_path


def test_landmarks_are_found_three_folders_deep_and_numbered_anew(landmarks: Path) -> None:
    clean = Landmarks(landmarks / "train_clean.csv")
    assert len(clean) == 4
    assert clean.classes == ["97734", "142820", "203092"]
    assert [clean.label(index) for index in range(4)] == [1, 1, 0, 2]
    assert clean.name(2) == str(landmarks / "train/f/a/0/fa0c1b3e5d7a9b2c.jpg")
    images = DecodedImages(clean)
    assert images.image(1).shape == (3, 7, 9)
    with pytest.raises(UnreadableImage):
        images.image(3)
    again = pickle.loads(pickle.dumps(clean))
    assert again.name(1) == clean.name(1), "as a process that loads images has it"

    everything = Landmarks(landmarks / "train.csv")
    assert everything.classes == ["1", "7"]
    assert torch.equal(DecodedImages(everything).image(0), images.image(0))


def test_lists_of_something_else_are_named(landmarks: Path) -> None:
    assert is_landmark_list(landmarks / "train_clean.csv")
    assert not is_landmark_list(landmarks / "train")
    other = landmarks / "other.csv"
    for text, reason in {
        "file,label\na,b\n": "is no list of GLDv2: its first line must be landmark_id,images or id,url,landmark_id",
        "landmark_id,images\n": "names no image",
        "landmark_id,images\n5\n": "line 2 of .* has 1 values instead of 2",
        "landmark_id,images\nx,17660ef415d37059\n": "of a landmark 'x', which cannot be",
        "landmark_id,images\n5,../../../etc\n": "has an image '../../../etc'",
        "landmark_id,images\n5,0000000000000000\n": "which is not there: the folder train must lie beside",
    }.items():
        other.write_text(text)
        with pytest.raises(ValueError, match=reason):
            Landmarks(other)
    assert not is_landmark_list(landmarks / "nowhere.csv")
    with pytest.raises(ValueError, match="there is no file"):
        Landmarks(landmarks / "nowhere.csv")
