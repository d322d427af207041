"""A run's folder is made once, and its config.json gives the configuration back."""

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from evomask.engine.pretrain import PretrainConfig
from evomask.engine.run import create_run, from_dict, read_run, sole_use, to_dict, write_atomically
from evomask.recipes import RECIPES


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_survives_being_written_and_read(tmp_path: Path, name: str) -> None:
    config = RECIPES[name]()
    create_run(tmp_path / "run", config, command=f"evomask pretrain {name}")
    assert read_run(tmp_path / "run", PretrainConfig) == config


def test_overrides_of_every_kind_survive() -> None:
    config = RECIPES["demo"]()
    vit = replace(config.host.encoder, image_size=(32, 48), in_chans=5, qk_norm=True, width=None)
    config = replace(
        config,
        host=replace(config.host, encoder=vit),
        data=replace(config.data, root=Path("my photos"), mean=(0.5,) * 5, std=(0.25, 0.5, 1, 2, 3)),
        masking=replace(config.masking, depth=0.2, linkage="average"),
        optim=replace(config.optim, warmup_epochs=0.5, clip_grad=None, betas=(0.8, 0.9)),
    )
    restored = from_dict(PretrainConfig, json.loads(json.dumps(to_dict(config))))
    assert restored == config
    assert isinstance(restored.data.root, Path)
    assert restored.data.std == (0.25, 0.5, 1, 2, 3)


@dataclass(frozen=True)
class Inner:
    sizes: tuple[int, ...]
    names: tuple[str, Path]


@dataclass(frozen=True)
class Outer:
    inner: Inner
    maybe: Inner | None
    folder: Path | None = None


@pytest.mark.parametrize(
    ("config", "written"),
    [
        (
            Outer(Inner((1, 2, 3), ("a", Path("b"))), None),
            {"inner": {"sizes": [1, 2, 3], "names": ["a", "b"]}, "maybe": None, "folder": None},
        ),
        (
            Outer(Inner((), ("", Path("/"))), Inner((7,), ("c", Path("d"))), Path("e/f")),
            {"inner": {"sizes": [], "names": ["", "/"]}, "maybe": {"sizes": [7], "names": ["c", "d"]}, "folder": "e/f"},
        ),
    ],
)
def test_nested_dataclasses_tuples_and_paths_as_json(config: Outer, written: dict) -> None:
    assert to_dict(config) == written
    assert from_dict(Outer, json.loads(json.dumps(written))) == config


def test_config_json_says_how_the_run_was_made(tmp_path: Path) -> None:
    create_run(tmp_path / "new" / "run", Inner((1,), ("a", Path("b"))), command="evomask pretrain demo --train.epochs 3")
    record = json.loads((tmp_path / "new" / "run" / "config.json").read_text())
    assert record["command"] == "evomask pretrain demo --train.epochs 3"
    assert record["config"] == {"sizes": [1], "names": ["a", "b"]}
    assert set(record["versions"]) == {"python", "evomask", "torch", "torchvision", "timm", "numpy", "pillow"}
    assert all(record["versions"].values())
    assert record["machine"]
    assert "git" in record


def test_git_is_the_revision_of_the_source(tmp_path: Path) -> None:
    source = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=source, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("the project is not under git here")
    create_run(tmp_path, None, command="")
    revision = json.loads((tmp_path / "config.json").read_text())["git"]
    assert revision.removesuffix("-dirty").startswith(found.stdout.strip()[:12])


def test_without_git_a_run_is_made_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    create_run(tmp_path / "run", None, command="")
    assert json.loads((tmp_path / "run" / "config.json").read_text())["git"] is None


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    create_run(tmp_path, None, command="")
    assert (tmp_path / "config.json").exists()


def test_a_run_is_never_overwritten(tmp_path: Path) -> None:
    create_run(tmp_path, {"seed": 1}, command="")
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match=rf"exists.*`evomask resume {tmp_path}`.*--out"):
        create_run(tmp_path, {"seed": 2}, command="")
    assert (tmp_path / "config.json").read_bytes() == before


def test_another_folder_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"exists and is not empty \(it is no run\): choose another --out"):
        create_run(tmp_path, None, command="")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"cannot be made \(.*\): choose another --out"):
        create_run(tmp_path / place, None, command="")


def test_what_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{tmp_path} is no run folder: it has no config.json"):
        read_run(tmp_path, PretrainConfig)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"config": {"recipe": "demo", "unknown": 1}}',
        '{"config": 3}',
        '{"config": {"recipe": "demo", "host": 1}}',
    ],
)
def test_a_config_of_another_version_is_a_clear_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="does not describe a run of this version of evomask"):
        read_run(tmp_path, PretrainConfig)


def test_a_write_that_dies_half_way_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.json"
    write_atomically(path, "before")

    def die_half_way(self: Path, text: str) -> None:
        with self.open("w") as file:
            file.write(text[:3])
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", die_half_way)
        with pytest.raises(OSError, match="No space left"):
            write_atomically(path, "after")
    assert path.read_text() == "before"
    write_atomically(path, "after")
    assert path.read_text() == "after"
    assert [path.name for path in tmp_path.iterdir()] == ["file.json"]


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    code = "import sys, pathlib, evomask.engine.run as r\nwith r.sole_use(pathlib.Path(sys.argv[1])): print('mine')"

    def try_it() -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)

    with sole_use(tmp_path):
        assert f"another process is training in {tmp_path}" in try_it().stderr
    assert try_it().stdout == "mine\n"
