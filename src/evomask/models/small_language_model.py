"""A small language model made from a transformers configuration, with a tokenizer trained on the texts at hand."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from evomask.models.language_model import LEFT, RIGHT, LanguageModel, import_transformers

PAD, END = "<pad>", "</s>"


@dataclass(frozen=True, kw_only=True)
class SmallModelConfig:
    """The size of a small language model: a Llama.

    Attributes:
        width: of a token.
        depth: blocks.
        heads: of attention.
        vocabulary: tokens at most.
    """

    width: int = 128
    depth: int = 2
    heads: int = 4
    vocabulary: int = 1024

    def __post_init__(self):
        if self.width < 1 or self.heads < 1 or self.width % (2 * self.heads):
            raise ValueError(f"--small.model.width must be a multiple of twice its {self.heads} heads, not {self.width}")
        if self.vocabulary < 300:  # there are 256 bytes
            raise ValueError(f"--small.model.vocabulary must be at least 300, not {self.vocabulary}")


def make_small_language_model(texts: Iterable[str], config: SmallModelConfig, seed: int) -> LanguageModel:
    """A model with random weights, and a tokenizer of byte pairs (as GPT-2's) whose words are those of the texts.

    Args:
        texts: what it will read.
        config: its size.
        seed: of the weights.
    """
    transformers = import_transformers()
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Equal texts in equal order give equal tokenizers, in every process and at every start.
    tokenizer.train_from_iterator((LEFT + RIGHT + text for text in sorted(texts)), trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=PAD, eos_token=END)
    settings = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=config.width,
        intermediate_size=4 * config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        tie_word_embeddings=True,
        initializer_range=config.width**-0.5,  # transformers' 0.02 is for thousands of channels: few ones would learn nothing
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(settings)
    return LanguageModel(model, fast, "small")
