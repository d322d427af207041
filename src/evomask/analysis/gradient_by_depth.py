"""How large the gradients are, block by block, while a model is fine-tuned (the paper's Fig. 11)."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import fmean

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
    """The gradient of each block, the first first, mean over the logged steps of a training; NaN of a frozen one.

    Args:
        rows: of metrics.jsonl.

    Raises:
        ValueError: the rows hold no gradients.
    """
    found: dict[int, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(PREFIX):
                found.setdefault(int(name.removeprefix(PREFIX)), []).append(value)
    if not found:
        raise ValueError("no gradients were noted: `evomask evaluate finetune` does so with --gradients True")
    return [fmean(found[block]) if block in found else math.nan for block in range(1, max(found) + 1)]
