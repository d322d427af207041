"""A causal language model of transformers and its tokenizer, asked about what stands in embeddings before a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

LEFT, RIGHT = "<Img> ", "</Img>"
"""What stands before and after the embeddings of an image (GVT's wording; ordinary text to the tokenizer)."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters of low rank (Hu et al., 2022) for all linear layers but the last, where a language model has them.

    Attributes:
        rank: of each.
        alpha: their output is scaled by alpha / rank.
    """

    rank: int = 8
    alpha: int = 16

    def __post_init__(self):
        if self.rank < 1:
            raise ValueError(f"--lora.rank must be at least 1, not {self.rank}")


class LanguageModel:
    """A causal language model, of which nothing is trained but what `adapt` or `unfreeze` adds.

    Not a module: a checkpoint holds what is trained of it, see `trained`, and not the rest, which is where it came from.

    Args:
        model: of transformers, with dropout off.
        tokenizer: its own.
        name: what the user called it.

    Raises:
        ValueError: the tokenizer has no token for the end of a text.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str):
        if tokenizer.eos_token_id is None:
            raise ValueError(f"the tokenizer of {name} has no token for the end of a text (eos_token): name another model")
        self.model: Any = model.requires_grad_(False).eval()
        self.tokenizer, self.name = tokenizer, name
        self._checkpointed = False
        # A tokenizer may begin every text with a token of its own; some also end it.
        left: list[int] = tokenizer(LEFT).input_ids
        self._left = left[:-1] if left[-1] == tokenizer.eos_token_id else left

    @property
    def width(self) -> int:
        """Of an embedding."""
        return self.model.get_input_embeddings().embedding_dim

    @property
    def dtype(self) -> torch.dtype:
        """Of its embeddings."""
        return self.model.get_input_embeddings().weight.dtype

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.model.get_input_embeddings().weight.device

    def checkpoint_activations(self) -> None:
        """Compute what is inside a block a second time in the backward pass, instead of keeping it."""
        # The name that it has now, or the one that it had in the first releases of transformers 5.
        enable = getattr(self.model, "activation_checkpointing_enable", None) or self.model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        self._checkpointed = True

    def adapt(self, config: LoraConfig) -> None:
        """Add adapters of low rank, which are trained; everything else stays as it is.

        Raises:
            ValueError: peft is not installed.
        """
        try:
            import peft
        except ImportError as error:
            raise ValueError("LoRA needs peft: pip install 'evomask[language]'") from error
        lora = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        peft.inject_adapter_in_model(lora, self.model)
        for parameter in self.model.parameters():
            if parameter.requires_grad:  # AdamW's steps are too small for bfloat16
                parameter.data = parameter.data.float()

    def unfreeze(self) -> None:
        """Train all of it."""
        self.model.requires_grad_(True)

    @property
    def trained(self) -> "TrainedParameters":
        """What is trained of it, to be saved in checkpoints."""
        return TrainedParameters(self.model)

    def embed(self, ids: Tensor) -> Tensor:
        """(B, L) tokens -> (B, L, width)."""
        return self.model.get_input_embeddings()(ids)

    def answer_loss(
        self, context_BKD: Tensor, prompts: Sequence[str], answers: Sequence[str], context_mask: Tensor | None = None
    ) -> Tensor:
        """How surprised it is by each answer: (B,) float32, the mean over the answer's tokens and the end of the text.

        Args:
            context_BKD: embeddings, at the place of an image.
            prompts: B of them.
            answers: B of them.
            context_mask: (B, K) bool, which of the embeddings are there; None: all.
        """
        pairs = [self._tokens_of_pair(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        rows, begins = [row for row, _ in pairs], [begin for _, begin in pairs]
        length = max(map(len, rows))
        pad = self.tokenizer.eos_token_id  # seen by nobody: the mask leaves it out
        ids = torch.tensor([row + [pad] * (length - len(row)) for row in rows], device=self.device)
        there = torch.tensor([[1] * len(row) + [0] * (length - len(row)) for row in rows], device=self.device)
        wanted = torch.arange(length, device=self.device) >= torch.tensor(begins, device=self.device).unsqueeze(1)
        embeds, mask = self._with_context(context_BKD, context_mask, ids, there)
        first = min(begins)
        # Only where an answer is to be predicted are the many numbers of a word computed.
        places = torch.arange(embeds.shape[1] - length + first - 1, embeds.shape[1] - 1, device=self.device)
        self.model.train(self._checkpointed)  # checkpointing is for training; dropout is off in any case
        logits = self.model(inputs_embeds=embeds, attention_mask=mask, logits_to_keep=places, use_cache=False).logits.float()
        surprise = nn.functional.cross_entropy(logits.mT, ids[:, first:], reduction="none")
        counted = (wanted & there.bool())[:, first:]
        return (surprise * counted).sum(dim=1) / counted.sum(dim=1)

    @torch.no_grad()
    def answer(self, context_BKD: Tensor, prompts: Sequence[str], most: int, repetition_penalty: float = 1.0) -> list[str]:
        """The most likely words after each prompt, one by one.

        Args:
            context_BKD: embeddings, at the place of an image.
            prompts: B of them.
            most: so many tokens at most.
            repetition_penalty: 1.0 for none.
        """
        from transformers import GenerationConfig

        rows = [self.tokenizer(RIGHT + prompt, add_special_tokens=False).input_ids for prompt in prompts]
        length = max(map(len, rows))
        pad = self.tokenizer.eos_token_id
        # The gap lies before the prompt, so that all prompts end where the answer begins; nobody sees it.
        ids = torch.tensor([[pad] * (length - len(row)) + row for row in rows], device=self.device)
        there = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows], device=self.device)
        embeds, mask = self._with_context(context_BKD, None, ids, there)
        how = GenerationConfig(
            max_new_tokens=most,
            do_sample=False,
            repetition_penalty=repetition_penalty,
            eos_token_id=self.tokenizer.eos_token_id,
            pad_token_id=pad,
        )
        self.model.eval()
        said = self.model.generate(inputs_embeds=embeds, attention_mask=mask, generation_config=how)
        return [text.strip() for text in self.tokenizer.batch_decode(said, skip_special_tokens=True)]

    def _tokens_of_pair(self, prompt: str, answer: str) -> tuple[list[int], int]:
        """The tokens after the context, prompt, answer and end of the text, and at which of them the answer begins."""
        asked = self.tokenizer(RIGHT + prompt, add_special_tokens=False).input_ids
        whole = self.tokenizer(f"{RIGHT}{prompt} {answer}", add_special_tokens=False).input_ids
        alike = next((n for n, (a, b) in enumerate(zip(asked, whole, strict=False)) if a != b), min(len(asked), len(whole)))
        return [*whole, self.tokenizer.eos_token_id], alike

    def _with_context(
        self, context_BKD: Tensor, context_mask: Tensor | None, ids: Tensor, there: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Embeddings (B, L, width) and mask (B, L) of left frame, context and text."""
        batch, count = context_BKD.shape[:2]
        left = torch.tensor([self._left], device=self.device).expand(batch, -1)
        embeds = torch.cat((self.embed(left), context_BKD.to(self.dtype), self.embed(ids)), dim=1)
        context_there = torch.ones(batch, count, device=self.device) if context_mask is None else context_mask
        return embeds, torch.cat((torch.ones_like(left), context_there.to(there), there), dim=1)


class TrainedParameters(nn.Module):
    """The parameters of a model that are trained, themselves, not copies, under the names that they have there."""

    def __init__(self, model: nn.Module):
        super().__init__()
        trained = {name.replace(".", "/"): each for name, each in model.named_parameters() if each.requires_grad}
        for name, parameter in trained.items():
            self.register_parameter(name, parameter)


def load_language_model(name: str, precision: Literal["float32", "bfloat16"] = "float32") -> LanguageModel:
    """A causal language model of Hugging Face's hub, or of a folder.

    Args:
        name: a folder that `save_pretrained` made, with model and tokenizer, or a repository of the hub.
        precision: of its weights.

    Raises:
        ValueError: transformers is not installed, there is no such model, it is no causal language model, or has no tokenizer.
    """
    transformers = import_transformers()
    folder = Path(name)
    if folder.exists() and not (folder / "config.json").is_file():
        raise ValueError(f"{name} is no folder of a language model: it has no config.json")
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        if type(config) not in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
            raise ValueError(f"it is of type {config.model_type!r}, no causal language model of transformers")
        _turn_dropout_off(config)
        model = transformers.AutoModelForCausalLM.from_pretrained(name, config=config, dtype=getattr(torch, precision))
    except (OSError, ValueError, KeyError) as error:
        hint = "name a folder, a repository of Hugging Face's hub, or `small` for one made here"
        raise ValueError(f"no language model {name!r} can be loaded ({_first_line(error)}): {hint}") from error
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name)
    except Exception as error:  # of many kinds, as there are kinds of tokenizers
        raise ValueError(f"{name} has a language model but no tokenizer that can be loaded ({_first_line(error)})") from error
    return LanguageModel(model, tokenizer, name)


def import_transformers() -> Any:
    """The library.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ValueError("language models need transformers: pip install 'evomask[language]'") from error
    transformers.utils.logging.disable_progress_bar()  # of a file that is read in no time
    return transformers


def _turn_dropout_off(config: Any) -> None:
    """A frozen model says what it has to say; GPT-2 and others would else drop a tenth of it in training."""
    for name, value in vars(config).items():
        if isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
