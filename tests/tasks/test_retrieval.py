"""Retrieval from end to end: against a plain implementation, learning, resuming, and what a user can get wrong."""

import json
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate, normalize

from evomask.cli import main
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import TrainConfig
from evomask.engine.signals import Stopped
from evomask.models.encoders import Encoder
from evomask.models.vit import ViTConfig, build_vit
from evomask.tasks import metric_learning
from evomask.tasks.metric_learning import ArcFaceConfig
from evomask.tasks.retrieval import RetrievalConfig, retrieval
from evomask.tasks.retrieval_data import RetrievalDataConfig
from evomask.tasks.retrieval_result import load_shown

LABELS = [str(number) for number in range(8)]


def encoder() -> Encoder:
    torch.manual_seed(0)
    config = ViTConfig(name="vit_tiny_patch16_224", image_size=(16, 16), patch_size=8, width=32, depth=2, heads=2)
    return Encoder.of(build_vit(config), (0.5,) * 3, (0.25,) * 3, "tiny")


@pytest.fixture
def products(tmp_path: Path) -> Path:
    """A csv of eight products, each of its own stripes, in every image under another light: a query and five others each."""
    lines = ["file,product"]
    generator = np.random.default_rng(0)
    for label in LABELS:
        stripes = np.sin(np.arange(16) * (1 + int(label) % 4))[:, None, None] * 60 + np.zeros((16, 16, 3))
        stripes = stripes if int(label) < 4 else stripes.swapaxes(0, 1)
        for number in range(6):
            path = tmp_path / ("query" if number == 0 else "gallery") / f"{label}_{number}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = 128 + stripes + generator.uniform(-50, 50, 3) + generator.normal(0, 10, (16, 16, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
            lines.append(f"{path.relative_to(tmp_path)},{label}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "labels.csv"


def config(labels: Path | None, **options: Any) -> RetrievalConfig:
    loop = TrainConfig(epochs=30, batch_size=8, device="cpu", log_every=1)
    plain = {"workers": 0, "arcface": ArcFaceConfig(width=16, lr=0.05, crop_scale=(0.5, 1.0)), "loop": loop}
    return RetrievalConfig(labels=labels, **(plain | options))


def run(settings: RetrievalConfig, out: Path, resume: bool = False) -> dict[str, float]:
    out.mkdir(exist_ok=True)
    return retrieval(encoder(), settings, out, resume)


@torch.no_grad()
def test_it_is_what_a_plain_implementation_finds(products: Path, tmp_path: Path) -> None:
    found = run(config(products, pooling="mean", scales=(1.0, 2.0)), tmp_path / "out")
    model = encoder()
    doubled = encoder().resized((32, 32))
    described: dict[str, torch.Tensor] = {}
    for path in sorted(tmp_path.glob("*/*.png")):
        pixels = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float()[None]
        # the same kernel as torchvision's, then rounded as uint8 is
        large = interpolate(pixels, (32, 32), mode="bicubic", antialias=True).clamp(0, 255).round()
        at_scales = [
            normalize(each.features((image / 255 - 0.5) / 0.25), dim=1) for each, image in ((model, pixels), (doubled, large))
        ]
        described[path.stem] = normalize(sum(at_scales), dim=1)[0]  # type: ignore[arg-type]
    precisions, firsts = [], []
    gallery = [name for name in described if not name.endswith("_0")]
    for label in LABELS:
        order = sorted(gallery, key=lambda name: -float(described[name] @ described[f"{label}_0"]))
        right, area = 0, 0.0
        for place, name in enumerate(order):
            if name.startswith(label):
                before = right / place if place else 1.0
                right += 1
                area += (before + right / (place + 1)) / 2 / 5
        precisions.append(area)
        firsts.append(order[0].startswith(label))
    assert found["map"] == pytest.approx(100 * np.mean(precisions), abs=0.5)
    assert found["mp1"] == pytest.approx(100 * np.mean(firsts))
    assert found["queries"] == 8
    assert 10 < found["chance"] < 35

    rows = [json.loads(line) for line in (tmp_path / "out/nearest.jsonl").read_text().splitlines()]
    assert found["map"] == pytest.approx(100 * np.mean([row["average_precision"] for row in rows]))
    assert all(len(row["nearest"]) == 10 for row in rows)
    for row in rows:
        query = Path(row["query"]).stem.split("_")[0]
        assert [verdict for _, verdict in row["nearest"]] == [
            "right" if Path(name).stem.startswith(query) else "wrong" for name, _ in row["nearest"]
        ]
    images, verdicts = load_shown(tmp_path / "out/shown.safetensors")
    assert images.shape == (8, 6, 3, 128, 128)
    assert verdicts == [[verdict for _, verdict in row["nearest"][:5]] for row in rows]
    assert np.load(tmp_path / "out/descriptors/gallery.npy").shape == (40, 32)


def test_batches_blocks_and_precision_change_nothing_that_counts(products: Path, tmp_path: Path) -> None:
    expected = run(config(products), tmp_path / "one")
    assert run(config(products, batch_size=3, block=7), tmp_path / "small") == pytest.approx(expected)
    assert run(config(products, precision="float16"), tmp_path / "half") == pytest.approx(expected, abs=3)


def test_faiss_finds_the_same(products: Path, tmp_path: Path) -> None:
    pytest.importorskip("faiss")
    assert run(config(products, search="faiss"), tmp_path / "faiss") == run(config(products), tmp_path / "exact")


def test_descriptors_learnt_on_half_of_the_labels_find_the_others(products: Path, tmp_path: Path) -> None:
    before = run(config(products, half="first"), tmp_path / "before")
    after = run(config(products, half="first", finetune=True), tmp_path / "after")
    assert before["queries"] == after["queries"] == 4
    assert after["map"] > before["map"] + 5
    rates = [json.loads(line)["lr"] for line in (tmp_path / "after/metrics.jsonl").read_text().splitlines()]
    assert rates == pytest.approx([0.05 * (1 - step / 90) for step in range(90)])


def test_halves_share_no_label(products: Path) -> None:
    seen: dict[str, set[str]] = {}
    for half in ("first", "second"):
        tested, learnt = RetrievalDataConfig(labels=products, half=half, finetune=True).sources(encoder())  # type: ignore[arg-type]
        assert learnt is not None
        assert set(tested.queries.classes) == set(tested.gallery.classes)
        assert set(tested.queries.classes) | set(learnt.classes) == set(LABELS)
        assert not set(tested.queries.classes) & set(learnt.classes)
        assert len(learnt) == 24, "their queries are learnt from, too"
        seen[half] = set(learnt.classes)
    assert not seen["first"] & seen["second"]


def test_one_label_is_searched_but_has_no_halves(products: Path) -> None:
    head, *rows = products.read_text().splitlines()
    products.write_text("\n".join([head, *(row for row in rows if row.endswith(f",{LABELS[0]}"))]))
    tested, _ = RetrievalDataConfig(labels=products).sources(encoder())
    assert set(tested.gallery.classes) == {LABELS[0]}
    with pytest.raises(ValueError, match="there is but one label: no two halves can be made of it"):
        RetrievalDataConfig(labels=products, half="first").sources(encoder())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_stopped_anywhere_it_goes_on_bit_for_bit(
    products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Any
) -> None:
    loop = TrainConfig(epochs=2, batch_size=8, device="cpu", log_every=1, save_minutes=0, precision=precision)
    settings = config(products, half="first", finetune=True, loop=loop)
    expected = run(settings, tmp_path / "whole")
    steps = metric_learning.linear_to_zero

    def stop_at_4(step: int, **how: Any) -> float:
        if step == 4:
            raise Stopped(15, step, tmp_path)
        return steps(step, **how)

    with monkeypatch.context() as patch:
        patch.setattr(metric_learning, "linear_to_zero", stop_at_4)
        with pytest.raises(Stopped):
            run(settings, tmp_path / "parts")
    assert load_checkpoint(tmp_path / "parts")["step"] == 4
    assert run(settings, tmp_path / "parts", resume=True) == expected
    whole, parts = (load_checkpoint(tmp_path / name) for name in ("whole", "parts"))
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)
    assert run(settings, tmp_path / "parts", resume=True) == expected, "and once more, where nothing is left to train"


def test_the_margin_is_in_radians() -> None:
    loss = metric_learning._arcface_loss(3, ArcFaceConfig(width=4, margin=0.1, scale=45.25))
    torch.manual_seed(0)
    found, labels = normalize(torch.randn(5, 4), dim=1), torch.tensor([0, 1, 2, 0, 1])
    angle = (found @ normalize(loss.W.detach(), dim=0)).acos()  # type: ignore[union-attr, arg-type]
    angle[range(5), labels] += 0.1
    expected = torch.nn.functional.cross_entropy(45.25 * angle.cos(), labels)
    torch.testing.assert_close(loss(found, labels).detach(), expected)
    assert math.degrees(0.1) == pytest.approx(5.73, abs=0.005)


def test_scenes_where_nothing_is_named(tmp_path: Path) -> None:
    loop = TrainConfig(epochs=1, batch_size=8, device="cpu", log_every=1)
    settings = config(None, instances=4, views=3, finetune=True, loop=loop)
    tested, learnt = settings.sources(grey_encoder())
    assert (len(tested.queries), len(tested.gallery), len(learnt or ())) == (4, 8, 12)
    assert learnt is not None
    assert not torch.equal(tested.queries.image(0), learnt.image(0))
    out = tmp_path / "out"
    out.mkdir()
    assert retrieval(grey_encoder(), settings, out)["queries"] == 4


def grey_encoder() -> Encoder:
    torch.manual_seed(0)
    vit = ViTConfig(name="vit_tiny_patch16_224", image_size=(32, 32), patch_size=16, width=32, depth=1, heads=2, in_chans=1)
    return Encoder.of(build_vit(vit), (0.5,), (0.25,), "grey")


@pytest.fixture
def buildings(products: Path, tmp_path: Path) -> Path:
    """The products once more, as revisited Oxford has its buildings: a query is a box in its image."""
    names = [path.stem for path in sorted((tmp_path / "gallery").glob("*.png"))]
    (tmp_path / "jpg").mkdir()
    for path in tmp_path.glob("*/*.png"):
        Image.open(path).resize((48, 32)).save(tmp_path / "jpg" / f"{path.stem}.jpg")
    rows = []
    for label in LABELS[:3]:
        own = [number for number, name in enumerate(names) if name.startswith(label)]
        rows.append({"bbx": [3.2, 1.1, 40.0, 30.9], "easy": own[:2], "hard": own[2:4], "junk": own[4:]})
    rows[1] |= {"easy": [], "hard": rows[1]["easy"] + rows[1]["hard"]}
    content = {"imlist": names, "qimlist": [f"{label}_0" for label in LABELS[:3]], "gnd": rows}
    (tmp_path / "gnd_test.pkl").write_bytes(pickle.dumps(content))
    return tmp_path / "gnd_test.pkl"


def test_the_three_protocols_from_the_command_line(buildings: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    spec = ["--encoder", "untrained:demo", "--workers", "0", "--loop.device", "cpu"]
    arguments = ["evaluate", "retrieval", *spec, "--revisited", str(buildings), "--long-side", "48"]
    assert main([*arguments, "--scales", "1", "1.5", "--out", str(out)]) == 0
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    assert (metrics["easy_queries"], metrics["medium_queries"], metrics["hard_queries"]) == (2, 3, 3)
    assert {"easy_map", "medium_mp1", "hard_mp10", "medium_chance"} <= metrics.keys()
    assert (out / "found.png").exists()
    assert main(["resume", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["metrics"] == metrics
    rows = [json.loads(line) for line in (out / "nearest.jsonl").read_text().splitlines()]
    assert metrics["medium_map"] == pytest.approx(100 * np.mean([row["average_precision"] for row in rows]))
    capsys.readouterr()


def test_what_a_user_can_get_wrong_is_one_line(products: Path, tmp_path: Path, capsys) -> None:
    def error(*more: str) -> str:
        start = ["evaluate", "retrieval", "--encoder", "untrained:demo", "--workers", "0", "--loop.device", "cpu"]
        assert main([*start, *more, "--out", str(tmp_path / "out")]) == 2
        message = capsys.readouterr().err.splitlines()
        assert not (tmp_path / "out").exists(), "nothing is in the way of the next try"
        return message[-1]

    labels = ["--labels", str(products)]
    assert "give either --revisited or --labels" in error(*labels, "--revisited", "gnd.pkl")
    assert "--images are those of --revisited" in error("--images", "jpg")
    assert "about the files of a csv" in error("--half", "first")
    assert "where --finetune True says so" in error("--train", "x")
    assert "or test on one --half" in error(*labels, "--finetune", "True")
    assert "--long-side must be at least 1" in error(*labels, "--long-side", "0")
    assert "factors above 0" in error(*labels, "--scales", "1", "0")
    assert "a margin in radians" in error(*labels, "--arcface.margin", "5.73")
    assert "needs the columns file and colour" in error(*labels, "--label-column", "colour")
    assert "give --labels, or one to --train on" in error("--label-column", "colour")
    revisited = ["--revisited", "gnd.pkl", "--finetune", "True", "--train", str(products), "--label-column", "colour"]
    assert "there is no file gnd.pkl" in error(*revisited), "the column is that of the csv to learn from"
    assert "names no file in nowhere" in error(*labels, "--queries", "nowhere")
    assert "do not divide 20 x 20 px" in error(
        *labels, "--half", "first", "--finetune", "True", "--arcface.image-size", "20", "20"
    )
    assert "there is no file nowhere.pkl" in error("--revisited", "nowhere.pkl")
    text = products.read_text()
    products.write_text(text.replace("gallery/3_1.png", "gallery/gone.png"))
    assert "names 1 files that are not there" in error(*labels)
    products.write_text("\n".join(line for line in text.splitlines() if not line.startswith("gallery/3")))
    assert "3_0.png has no image of its label '3' in the gallery" in error(*labels)
    products.write_text(text)
    (tmp_path / "gallery/3_1.png").write_bytes(b"broken")
    assert "3_1.png cannot be read" in error(*labels)


def test_a_library_that_is_not_there_is_named(products: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.losses", None)
    with pytest.raises(ValueError, match=r"pip install 'evomask\[retrieval\]'"):
        run(config(products, half="first", finetune=True), tmp_path / "out")
