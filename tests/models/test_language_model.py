"""Language models of transformers: what they are asked, what is trained of them, and what cannot be loaded."""

import json
import sys
from pathlib import Path

import pytest
import torch

from evomask.models.language_model import LEFT, RIGHT, LanguageModel, LoraConfig, load_language_model
from evomask.models.small_language_model import SmallModelConfig, make_small_language_model

transformers = pytest.importorskip("transformers")

TEXTS = ["Question: what colour is the car? Answer: red", "Question: is there a cat? Answer: no", "is there a dog? yes."]
PROMPTS = ["Question: what colour is the car? Answer:", "Question: is there a cat? Answer:"]
SIZE = SmallModelConfig(width=16, depth=2, heads=2, vocabulary=320)


@pytest.fixture
def small() -> LanguageModel:
    return make_small_language_model(TEXTS, SIZE, seed=0)


@pytest.fixture
def gpt2() -> LanguageModel:
    """Positions that are learnt, and dropout in its configuration."""
    made = make_small_language_model(TEXTS, SIZE, seed=0)
    ends = {"bos_token_id": made.tokenizer.eos_token_id, "eos_token_id": made.tokenizer.eos_token_id}
    config = transformers.GPT2Config(vocab_size=len(made.tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=64, **ends)
    torch.manual_seed(0)
    return LanguageModel(transformers.GPT2LMHeadModel(config), made.tokenizer, "gpt2")


def save(language: LanguageModel, folder: Path) -> Path:
    language.model.save_pretrained(folder)
    language.tokenizer.save_pretrained(folder)
    return folder


def test_the_tokenizer_loses_nothing_and_is_the_same_each_time(small: LanguageModel) -> None:
    text = f"{LEFT}Zürich, 12 %{RIGHT} is there?"
    ids = small.tokenizer(text).input_ids
    assert small.tokenizer.decode(ids) == text
    assert make_small_language_model(reversed(TEXTS), SIZE, seed=0).tokenizer(text).input_ids == ids


@pytest.mark.parametrize("kind", ["small", "gpt2"])
def test_the_loss_is_that_of_each_sequence_alone(kind: str, request: pytest.FixtureRequest) -> None:
    language: LanguageModel = request.getfixturevalue(kind)
    context = torch.randn(2, 3, 16)
    losses = language.answer_loss(context, PROMPTS, ["red", "no"])
    for number, answer in enumerate(("red", "no")):
        left = language.tokenizer(LEFT).input_ids
        asked = language.tokenizer(RIGHT + PROMPTS[number], add_special_tokens=False).input_ids
        answered = [*language.tokenizer(" " + answer, add_special_tokens=False).input_ids, language.tokenizer.eos_token_id]
        embed = language.model.get_input_embeddings()
        parts = [embed(torch.tensor(left)), context[number], embed(torch.tensor(asked + answered))]
        logits = language.model.eval()(inputs_embeds=torch.cat(parts)[None]).logits[0]
        places = torch.arange(len(answered)) + len(left) + 3 + len(asked) - 1
        expected = torch.nn.functional.cross_entropy(logits[places], torch.tensor(answered))
        torch.testing.assert_close(losses[number], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["small", "gpt2"])
def test_answers_to_prompts_of_unequal_length_are_those_to_each_alone(kind: str, request: pytest.FixtureRequest) -> None:
    language: LanguageModel = request.getfixturevalue(kind)
    for parameter in language.model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)  # so that answers differ
    context = torch.randn(2, 3, 16)
    together = language.answer(context, PROMPTS, 5)
    alone = [language.answer(context[n : n + 1], PROMPTS[n : n + 1], 5)[0] for n in range(2)]
    assert together == alone and together[0] != together[1]


def test_context_that_is_not_there_changes_nothing(small: LanguageModel) -> None:
    context = torch.randn(2, 3, 16)
    there = torch.tensor([[True, True, False]] * 2)
    losses = small.answer_loss(context, PROMPTS, ["red", "no"], there)
    context[:, 2] = 9.0
    torch.testing.assert_close(small.answer_loss(context, PROMPTS, ["red", "no"], there), losses)


def test_first_weights_are_as_large_as_the_width_asks_for() -> None:
    language = make_small_language_model(TEXTS, SmallModelConfig(width=64, depth=1, heads=2), seed=0)
    for weight in (language.model.get_input_embeddings().weight, language.model.model.layers[0].mlp.up_proj.weight):
        assert weight.std().item() == pytest.approx(64**-0.5, rel=0.05)


def test_nothing_is_trained_unless_it_is_said(small: LanguageModel) -> None:
    assert not list(small.trained.parameters())
    small.unfreeze()
    assert sum(p.numel() for p in small.trained.parameters()) == sum(p.numel() for p in small.model.parameters())


def test_adapters_are_trained_and_nothing_else(small: LanguageModel) -> None:
    pytest.importorskip("peft")
    before = {name: tensor.clone() for name, tensor in small.model.state_dict().items()}
    context = torch.randn(2, 3, 16)
    plain = small.answer_loss(context, PROMPTS, ["red", "no"])
    small.adapt(LoraConfig(rank=2))
    names = list(small.trained.state_dict())
    assert names and all("lora_" in name for name in names)
    torch.testing.assert_close(small.answer_loss(context, PROMPTS, ["red", "no"]), plain)  # they begin as nothing
    optimizer = torch.optim.SGD(small.trained.parameters(), lr=1.0)
    for _ in range(2):
        small.answer_loss(context, PROMPTS, ["red", "no"]).sum().backward()
        optimizer.step()
    assert not torch.allclose(small.answer_loss(context, PROMPTS, ["red", "no"]), plain)
    after = {name.replace(".base_layer", ""): tensor for name, tensor in small.model.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_gradients_are_the_same_with_blocks_computed_twice(small: LanguageModel) -> None:
    gradients = []
    for _ in range(2):
        context = torch.ones(2, 3, 16, requires_grad=True)
        small.answer_loss(context, PROMPTS, ["red", "no"]).sum().backward()
        gradients.append(context.grad)
        small.checkpoint_activations()
    torch.testing.assert_close(*gradients)


def test_a_folder_gives_the_same_model_without_dropout(gpt2: LanguageModel, tmp_path: Path) -> None:
    assert gpt2.model.config.resid_pdrop == 0.1
    loaded = load_language_model(str(save(gpt2, tmp_path / "gpt2")))
    assert {type(m).__name__: m.p for m in loaded.model.modules() if isinstance(m, torch.nn.Dropout)} == {"Dropout": 0.0}
    context = torch.randn(2, 3, 16)
    torch.testing.assert_close(
        loaded.answer_loss(context, PROMPTS, ["red", "no"]), gpt2.answer_loss(context, PROMPTS, ["red", "no"])
    )
    assert load_language_model(str(tmp_path / "gpt2"), "bfloat16").dtype == torch.bfloat16


def test_what_cannot_be_loaded_is_one_line(small: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def error(name: Path | str) -> str:
        with pytest.raises(ValueError, match="language") as caught:
            load_language_model(str(name))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "empty").mkdir()
    assert "it has no config.json" in error(tmp_path / "empty")
    small.model.save_pretrained(tmp_path / "mute")
    assert "has a language model but no tokenizer" in error(tmp_path / "mute")
    transformers.ViTConfig().save_pretrained(tmp_path / "vit")
    assert "it is of type 'vit', no causal language model" in error(tmp_path / "vit")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/config.json").write_text(json.dumps({"model_type": "no such thing"}))
    assert "no language model" in error(tmp_path / "odd")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "transformers", None)
        assert "pip install 'evomask[language]'" in error("small")


def test_a_model_without_an_end_is_refused(small: LanguageModel) -> None:
    small.tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no token for the end of a text"):
        LanguageModel(small.model, small.tokenizer, "endless")


@pytest.mark.parametrize(("option", "value"), [("width", 18), ("vocabulary", 100)])
def test_a_small_model_that_cannot_be_is_named(option: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"--small.model.{option}"):
        SmallModelConfig(**{option: value})
