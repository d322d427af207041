"""The discrete VAE of DALL-E (Ramesh et al., 2021), whose tokens BEiT predicts, as transformers carries it: its encoder."""

from pathlib import Path
from typing import Any

from torch import Tensor

from evomask.models.tokenizer import Tokenizer

LOGIT_LAPLACE_EPS = 0.1
"""openai/DALL-E, utils.py, `map_pixels`: pixels are brought from [0, 1] into [0.1, 0.9] before they are encoded."""


class DalleTokenizer(Tokenizer):
    """8,192 tokens of 8 x 8 px: 14 x 14 of them in an image of 112 px. transformers has no decoder for them.

    Args:
        codebook: transformers' `FlavaImageCodebook`, of any size.
    """

    def __init__(self, codebook: Any):
        super().__init__()
        self.codebook = codebook
        self.vocabulary, self.in_chans = codebook.config.vocab_size, codebook.config.input_channels
        self.stride = 8  # three of its groups end in a pooling of 2 x 2, whatever its configuration says

    @classmethod
    def load(cls, folder: Path) -> "DalleTokenizer":
        """From a folder in the format of transformers, such as the files of facebook/flava-image-codebook.

        Raises:
            ValueError: transformers is not installed, or cannot load it.
        """
        try:
            from transformers import FlavaImageCodebook
        except ImportError as error:
            raise ValueError(f"{folder} needs transformers to be read: pip install 'evomask[transformers]'") from error
        try:
            loaded: Any = FlavaImageCodebook.from_pretrained(str(folder), output_loading_info=True)
        except Exception as error:  # whatever transformers, or the files, give rise to
            raise ValueError(f"{folder} cannot be loaded as transformers' FlavaImageCodebook: {error}") from error
        codebook, report = loaded
        if report["missing_keys"] or report["mismatched_keys"]:
            raise ValueError(f"{folder} is no whole FlavaImageCodebook: it lacks {len(report['missing_keys'])} tensors")
        return cls(codebook)

    def ids(self, pixels: Tensor) -> Tensor:
        """See `Tokenizer.ids`."""
        return self.codebook.get_codebook_indices((1 - 2 * LOGIT_LAPLACE_EPS) * pixels + LOGIT_LAPLACE_EPS)
