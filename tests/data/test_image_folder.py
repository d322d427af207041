import pytest
from PIL import Image

from evomask.data.decode import UnreadableImage
from evomask.data.layouts import open_images


def write(path, colour=(1, 2, 3), size=(4, 5)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_classes_are_the_folders_below_the_root(tmp_path):
    for name in ("b/2.png", "a/deep/1.PNG", "a/0.jpeg", "b/1.webp"):
        write(tmp_path / name)
    folder = open_images(tmp_path)
    assert folder.classes == ["a", "b"]
    assert [folder.name(i) for i in range(4)] == [
        str(tmp_path / n) for n in ("a/0.jpeg", "a/deep/1.PNG", "b/1.webp", "b/2.png")
    ]
    assert [folder.label(i) for i in range(len(folder))] == [0, 0, 1, 1]
    assert folder.image(3).shape == (3, 5, 4)


@pytest.mark.parametrize("names", [("1.png", "2.png"), ("1.png", "a/2.png")])
def test_flat_and_mixed_folders_have_no_labels(tmp_path, names):
    for name in names:
        write(tmp_path / name)
    folder = open_images(tmp_path)
    assert len(folder) == 2
    assert folder.classes == []
    assert folder.label(0) is None


def test_hidden_and_other_files_are_left_out(tmp_path):
    for name in ("1.png", ".hidden.png", ".cache/2.png"):
        write(tmp_path / name)
    (tmp_path / "notes.txt").write_text("words")
    assert len(open_images(tmp_path)) == 1


def test_links_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "root" / "a" / "circle").symlink_to(tmp_path / "root")
    assert len(open_images(tmp_path / "root")) == 1


def test_what_is_no_folder_of_images_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"no folder .*missing"):
        open_images(tmp_path / "missing")
    (tmp_path / "file.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"file\.png is a file"):
        open_images(tmp_path / "file.png")
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("words")
    with pytest.raises(ValueError, match=r"no images in .*texts.*\.jpg.*\.png"):
        open_images(tmp_path / "texts")


def test_a_file_that_is_gone_is_unreadable(tmp_path):
    write(tmp_path / "1.png")
    folder = open_images(tmp_path)
    (tmp_path / "1.png").unlink()
    with pytest.raises(UnreadableImage, match="No such file"):
        folder.image(0)


def test_imagenette(shared_data):
    folder = open_images(shared_data / "imagenette112" / "train")
    assert (len(folder), len(folder.classes)) == (9469, 10)
    assert folder.image(4000).shape == (3, 112, 112)
