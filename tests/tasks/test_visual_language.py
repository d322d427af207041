"""A language model asked about images, from end to end: it resumes bit for bit, and the language model stays as it is."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from evomask.cli import main
from evomask.data.question_images import QuestionCrops, WholeQuestionImages
from evomask.engine import progress
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.pretrain import normalise
from evomask.engine.signals import Stopped
from evomask.models.encoders import Encoder
from evomask.models.resampler import ResamplerConfig
from evomask.models.small_language_model import SmallModelConfig
from evomask.models.vit import ViTConfig, build_vit
from evomask.tasks.cached_tokens import cache_tokens
from evomask.tasks.small_language_model import Facts, SmallLanguageConfig
from evomask.tasks.vqa import VqaConfig, evaluate_vqa

pytest.importorskip("transformers")

COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20)}


def encoder() -> Encoder:
    torch.manual_seed(0)
    config = ViTConfig(name="vit_tiny_patch16_224", image_size=(16, 16), patch_size=8, width=32, depth=1, heads=2)
    return Encoder.of(build_vit(config), (0.5,) * 3, (0.25,) * 3, "tiny")


def write_questions(root: Path, images: int) -> None:
    """Two questions about each image: whether it is of a colour, and of which."""
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(images)
    asked, answered = [], []
    for image in range(images):
        colour = list(COLOURS)[rng.integers(2)]
        pixels = np.array(COLOURS[colour]) + rng.integers(-20, 20, (16, 16, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / "images" / f"{image}.png")
        for text, answer in (("what colour?", colour), ("is it red?", "yes" if colour == "red" else "no")):
            asked.append({"question_id": len(asked), "image_id": image, "question": text})
            answered.append({"question_id": len(answered), "answer_type": "other", "answers": [{"answer": answer}]})
    (root / "questions.json").write_text(json.dumps({"questions": asked}))
    (root / "annotations.json").write_text(json.dumps({"annotations": answered}))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("vqa")
    found = {}
    for split, images in (("train", 32), ("val", 10)):
        write_questions(root / split, images)
        found |= {f"{split}_{part}": root / split / f"{part}.json" for part in ("questions", "annotations")}
        found[f"{split}_images"] = root / split / "images"
    return found


def small_config(files: dict[str, Path], **options: Any) -> VqaConfig:
    small = SmallLanguageConfig(
        model=SmallModelConfig(width=32, depth=1, heads=2, vocabulary=300),
        facts=2,
        epochs=12,
        batch_size=16,
        optim=OptimConfig(base_lr=0.16, warmup_epochs=1, clip_grad=1.0),
    )
    plain = {
        "small": small,
        "resampler": ResamplerConfig(latents=2, depth=1, heads=2, head_width=8),
        "optim": OptimConfig(base_lr=0.16, warmup_epochs=1, clip_grad=1.0),
        "loop": TrainConfig(epochs=12, batch_size=16, device="cpu", log_every=1),
        "workers": 0,
        "new_tokens": 4,
        "validate_every": 50,
    }
    return VqaConfig(**(files | plain | options))


@pytest.fixture(scope="module")
def learnt(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float]]:
    """An evaluation's folder and its metrics."""
    out = tmp_path_factory.mktemp("learnt")
    metrics = evaluate_vqa(encoder(), small_config(files), out)
    return out, metrics


def test_metrics_stand_beside_those_of_whoever_does_not_look(learnt) -> None:
    out, metrics = learnt
    assert metrics["strict_majority"] == 35 and metrics["strict_question_majority"] == 70
    assert {"faithful", "strict", "strict_shuffled", "exact_shuffled", "strict_other_majority"} <= metrics.keys()
    rows = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert rows[0].keys() == {"image", "question", "answers", "said", "shuffled", "majority", "question_majority"}


def test_checkpoints_hold_what_is_trained_and_no_language_model(learnt) -> None:
    out, _ = learnt
    model = load_checkpoint(out)["model"]
    own = ("norm.", "resampler.", "projection.", "mean", "std")
    assert all(name.startswith(tuple(f"tokenizer.{part}" for part in own)) for name in model)


def test_what_all_images_have_in_common_is_taken_away(learnt, files) -> None:
    seen = encoder()
    crops = QuestionCrops(small_config(files).questions(seen)[0], (16, 16), 3, seed=0)
    images = torch.stack([crops[epoch, index][0] for epoch in range(4) for index in range(64)])
    with torch.no_grad():
        tokens = seen.patch_tokens(normalise(images, seen.mean, seen.std))
    tokenizer = load_checkpoint(learnt[0])["model"]
    torch.testing.assert_close(tokenizer["tokenizer.mean"], tokens.mean(dim=(0, 1)), rtol=0, atol=1e-4)
    torch.testing.assert_close(tokenizer["tokenizer.std"], tokens.std(dim=(0, 1), correction=0), rtol=1e-3, atol=1e-4)


def test_the_language_model_learns_at_its_own_rate(files) -> None:
    config = small_config(files, language="full", language_rate=5.0, small=SmallLanguageConfig(epochs=0))
    parts = [nn.Linear(2, 2), nn.Linear(2, 2)]
    optimizer = build_adamw(nn.ModuleList(parts), config.optim, [(parts[0], 1.0), (parts[1], config.language_rate)])
    assert [(group["lr_scale"], group["weight_decay"]) for group in optimizer.param_groups] == [
        (1.0, 0.0),
        (1.0, 0.05),
        (5.0, 0.0),
        (5.0, 0.05),
    ]
    with pytest.raises(ValueError, match=r"--language-rate must be above 0, not 0\.0"):
        small_config(files, language_rate=0.0)


@pytest.mark.parametrize("language", ["frozen", "lora"])
def test_a_frozen_language_model_does_not_move_a_bit(learnt, files, tmp_path: Path, language: Any, monkeypatch) -> None:
    if language == "lora":
        pytest.importorskip("peft")
    from evomask.tasks import visual_language

    folder = learnt[0] / "language_model" / "model"
    held = []
    load = visual_language.load_language_model
    monkeypatch.setattr(visual_language, "load_language_model", lambda *how: held.append(load(*how)) or held[0])
    before = {name: tensor.clone() for name, tensor in load(str(folder)).model.state_dict().items()}
    config = small_config(files, language_model=str(folder), language=language, tune_encoder=True, shuffled=False)
    config = replace(config, loop=replace(config.loop, epochs=1, checkpoint_activations=True))
    judged = encoder()
    images = torch.randn(1, 3, 16, 16)
    features = judged.features(images)
    evaluate_vqa(judged, config, tmp_path)
    after = {name.replace(".base_layer", ""): tensor for name, tensor in held[0].model.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert not torch.allclose(judged.features(images), features), "the encoder was trained jointly"
    names = load_checkpoint(tmp_path)["model"]
    assert any(name.startswith("tokenizer.encoder.blocks") for name in names)
    assert any("lora_" in name for name in names) is (language == "lora")
    assert not any("embed_tokens" in name for name in names)


@pytest.mark.parametrize("steps", [3, 30], ids=["in the language model", "in the visual tokenizer"])
def test_stopped_anywhere_it_goes_on_bit_for_bit(files, tmp_path: Path, monkeypatch, steps: int) -> None:
    config = small_config(files)
    config = replace(
        config,
        small=replace(config.small, epochs=2),
        loop=replace(config.loop, epochs=6, save_minutes=0),
        shuffled=False,
    )
    if steps == 30:  # of which 24 are behind it
        config = replace(config, small=replace(config.small, epochs=6))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    expected = evaluate_vqa(encoder(), config, whole)
    with monkeypatch.context() as patch:
        left = iter(range(steps))

        def stop_after_some(*_: Any) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        patch.setattr(progress.ProgressBar, "update", stop_after_some)
        with pytest.raises((KeyboardInterrupt, Stopped)):
            evaluate_vqa(encoder(), config, parts)
    assert (parts / "language_model/model").exists() is (steps == 30)
    torch.rand(5)
    assert evaluate_vqa(encoder(), config, parts, resume=True) == expected
    for below in ("language_model", "."):
        ours, theirs = (load_checkpoint(folder / below)["model"] for folder in (parts, whole))
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_cached_tokens_are_those_of_each_questions_image(files) -> None:
    seen = encoder()
    questions = small_config(files).questions(seen)[0]

    def look(images_uint8: torch.Tensor) -> torch.Tensor:
        return seen.patch_tokens(normalise(images_uint8, seen.mean, seen.std))

    tokens = cache_tokens(look, questions, (16, 16), device=torch.device("cpu"), workers=0, batch_size=5)
    assert (len(tokens.of_images), len(questions)) == (32, 64), "two questions are about one image"
    asked = torch.tensor([8, 0, 3])
    images = torch.stack([WholeQuestionImages(questions, (16, 16))[int(number)][0] for number in asked])
    with torch.no_grad():
        expected = seen.patch_tokens(normalise(images, seen.mean, seen.std))
    torch.testing.assert_close(tokens.of(asked), expected, rtol=1e-3, atol=1e-3)


def test_from_cached_tokens_the_same_is_learnt_as_from_whole_images(files, learnt, tmp_path: Path) -> None:
    folder = str(learnt[0] / "language_model" / "model")
    config = small_config(files, language_model=folder, crop_scale=(1.0, 1.0), flip=False, shuffled=False)
    config = replace(config, loop=replace(config.loop, epochs=3))
    losses = {}
    for cached in (False, True):
        out = tmp_path / str(cached)
        out.mkdir()
        metrics = evaluate_vqa(encoder(), replace(config, cached=cached), out)
        losses[cached] = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert evaluate_vqa(encoder(), replace(config, cached=cached), out, resume=True) == metrics
    assert len(losses[True]) == 12 and losses[True][-1] < 0.9 * losses[True][0]
    assert losses[True] == pytest.approx(losses[False], rel=1e-2)
    with pytest.raises(ValueError, match="--cached False"):
        small_config(files, cached=True, tune_encoder=True)


def test_language_and_images_can_be_learnt_together(files, tmp_path: Path) -> None:
    config = small_config(files, language="full")
    config = replace(config, small=replace(config.small, epochs=0), loop=replace(config.loop, epochs=1, precision="bfloat16"))
    evaluate_vqa(encoder(), replace(config, shuffled=False), tmp_path)
    assert any(name.startswith("language.model/embed_tokens") for name in load_checkpoint(tmp_path)["model"])


def test_facts_are_about_the_same_image_and_differ_by_epoch(files) -> None:
    questions, _ = small_config(files).questions(encoder())
    facts = Facts(questions, most=2, seed=0)
    own = {f"{questions.texts[index]} {questions.answer(index)}." for index in (4, 5)}  # both about image 2
    drawn = [facts.about(epoch, 4) for epoch in range(20)]
    assert drawn == [facts.about(epoch, 4) for epoch in range(20)] and len(set(drawn)) > 2
    assert {f"{part.strip()}." for text in drawn for part in text.split(".") if part.strip()} <= own
    assert set(drawn) >= {""}
    alone = Facts(questions, most=1, seed=0)
    assert {alone.about(epoch, 4) for epoch in range(20)} == {"", alone.sentences[4]}, "a colour says more than yes or no"


@pytest.mark.parametrize("task", ["counting", "identification"])
def test_objects_of_scenes_from_the_command_line(task: str, learnt, tmp_path: Path, capsys) -> None:
    model = str(learnt[0] / "language_model" / "model")
    loop = ["--loop.epochs", "1", "--loop.batch-size", "4", "--workers", "0", "--new-tokens", "4", "--val-limit", "8"]
    out = tmp_path / "out"
    common = [
        "evaluate",
        task,
        "--encoder",
        "untrained:demo",
        "--language-model",
        model,
        "--scenes",
        "24",
        "--balanced",
        "False",
        "--prompt",
        "{image} {} {answer}:",
    ]
    assert main([*common, *loop, "--out", str(out)]) == 0
    metrics = json.loads((out / "result.json").read_text())["metrics"]
    assert {"faithful", "strict", "strict_majority", "strict_shuffled", "strict_question_majority"} <= metrics.keys()
    assert main(["resume", str(out)]) == 0
    assert json.loads((out / "result.json").read_text())["metrics"] == metrics


def test_what_cannot_be_asked_is_one_line(files, learnt, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    data = [f"--{name.replace('_', '-')}={path}" for name, path in files.items()]

    def error(*more: str, task: str = "vqa", given: list[str] = data) -> str:
        assert main(["evaluate", task, "--encoder", "untrained:demo", *given, *more, "--out", str(tmp_path / "out")]) == 2
        message = capsys.readouterr().err
        lines = [line for line in message.splitlines() if line.startswith("evomask: ")]
        assert len(lines) == 1
        assert not (tmp_path / "out").exists()
        return lines[0]

    assert "did you mean --language-model" in error("--language-modle", "small")
    assert "give --val-images, too, or no files at all" in error(given=data[:-1])
    assert "no language model 'no/such-model' can be loaded" in error("--language-model", "no/such-model")
    mute = shutil.copytree(learnt[0] / "language_model" / "model", tmp_path / "mute")
    for path in mute.glob("tokenizer*"):
        path.unlink()
    assert "no tokenizer" in error("--language-model", str(mute))
    assert "leave --loop.parallel at ddp" in error("--loop.parallel", "fsdp")
    assert "--prompt needs {}" in error("--prompt", "What?")
    assert "there are only 64 images for a batch of 1000" in error("--loop.batch-size", "1000", "--small.batch-size", "1000")
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"image_id": 1, "text_in": "How many?", "text_out": "Yes."}]))
    both = [
        f"--{part}={path}"
        for split in ("train", "val")
        for part, path in ((split, rows), (f"{split}-images", files["val_images"]))
    ]
    assert "the answer 'yes', which is no count" in error(task="counting", given=both)
    rows.write_text("[")
    assert "rows.json cannot be read as COCO's json file" in error(task="identification", given=both)
