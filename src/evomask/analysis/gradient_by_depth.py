"""How large the gradients are, block by block, while a model is fine-tuned (the paper's Fig. 11)."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

PREFIX = "gradient_block_"
"""Of the names in metrics.jsonl; the number of the block, from 1, follows."""


class GradientByDepth:
    """Notes the gradients of a model's blocks as they are computed, since the optimiser throws them away.

    Args:
        model: a ViT, BEiT or Swin of timm. Its parameters are watched; nothing is changed.
    """

    def __init__(self, model: nn.Module):
        blocks = [module for module in model.modules() if hasattr(module, "drop_path1")]
        self._sums: list[dict[int, Tensor]] = [{} for _ in blocks]
        self._counts = [sum(p.numel() for p in block.parameters() if p.requires_grad) for block in blocks]
        for block, sums in zip(blocks, self._sums, strict=True):
            for number, parameter in enumerate(p for p in block.parameters() if p.requires_grad):
                parameter.register_post_accumulate_grad_hook(partial(_note, sums, number))

    def row(self) -> dict[str, float]:
        """Mean absolute value of the newest gradient of each block; its names begin with PREFIX."""
        blocks = zip(self._sums, self._counts, strict=True)
        return {
            f"{PREFIX}{number}": torch.stack(list(sums.values())).sum().item() / count
            for number, (sums, count) in enumerate(blocks, start=1)
            if sums
        }


def _note(sums: dict[int, Tensor], number: int, parameter: Tensor) -> None:
    assert parameter.grad is not None
    sums[number] = parameter.grad.detach().abs().sum(dtype=torch.float32)


def mean_gradients(rows: Sequence[Mapping[str, float]]) -> list[float]:
    """The gradient of each block, the first first, mean over the logged steps of a training.

    Args:
        rows: of metrics.jsonl.

    Raises:
        ValueError: the rows hold no gradients.
    """
    found = [row for row in rows if f"{PREFIX}1" in row]
    if not found:
        raise ValueError("no gradients were noted: `evomask evaluate finetune` does so with --gradients True")
    blocks = sum(name.startswith(PREFIX) for name in found[0])
    return [sum(row[f"{PREFIX}{block}"] for row in found) / len(found) for block in range(1, blocks + 1)]
