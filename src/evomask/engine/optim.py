"""Optimisers and their schedules, step by step: linear warm-up, and what follows it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.optim._param_groups import param_groups_layer_decay, param_groups_weight_decay
from timm.optim.lars import Lars
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW and its schedule. The defaults are MAE's (He et al., 2022, appendix), as in the paper (Section V-B).

    Attributes:
        base_lr: learning rate at a batch of 256; it is scaled with the batch size.
        min_lr: where the schedule ends, at a batch of 256.
        warmup_epochs: epochs of linear rise from zero; fractions count.
        decay: how the rate falls after that: as half a cosine; in a line, the polynomial of power 1 of segmenters; or in steps,
            to a tenth after 3/4 of all steps and to a hundredth after 11/12 of them, whatever min_lr is, as detectors have it.
        betas: decay of AdamW's running means.
        weight_decay: on matrices only, not on biases, norms and tokens.
        clip_grad: largest gradient norm (none: not clipped).
    """

    base_lr: float = 1.5e-4
    min_lr: float = 0.0
    warmup_epochs: float = 40
    decay: Literal["cosine", "linear", "steps"] = "cosine"
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.05
    clip_grad: float | None = None

    def __post_init__(self):
        for name in ("base_lr", "min_lr", "warmup_epochs", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"--optim.{name.replace('_', '-')} must be at least 0, not {getattr(self, name)}")
        if self.clip_grad is not None and self.clip_grad <= 0:
            raise ValueError(f"--optim.clip-grad must be above 0, not {self.clip_grad}; None clips nothing")


STEPS = (3 / 4, 11 / 12)
"""Shares of all steps after which the rate falls to a tenth, where it falls in steps."""

TOKENS_AND_POSITIONS = re.compile(
    r"(cls_token|mask_token|reg_token|latents|pos_embed|relative_position_bias_table|logit_scale|cpb_mlp\..*)$"
)
"""In timm's ViT, BEiT and Swin, and in the resampler: parameters that are no matrices though of several dimensions, or make the
bias of attention.
"""


def tokens_and_positions(model: nn.Module) -> list[str]:
    """The names of the parameters that are spared weight decay though they have several dimensions."""
    return [name for name, _ in model.named_parameters() if TOKENS_AND_POSITIONS.search(name)]


def build_adamw(model: nn.Module, config: OptimConfig, scales: Sequence[tuple[nn.Module, float]] = ()) -> torch.optim.AdamW:
    """Fused AdamW; weight decay leaves out one-dimensional parameters, tokens and positions, as MAE, BEiT and SimMIM do.

    Args:
        model: what is trained.
        config: how.
        scales: parts that the model consists of, each with its rate over the configured one; none: all have that.
    """
    groups: list[dict[str, Any]] = []
    for part, scale in scales or [(model, 1.0)]:
        for group in param_groups_weight_decay(part, config.weight_decay, no_weight_decay_list=tokens_and_positions(part)):
            if group["params"]:
                groups.append(group | {"lr_scale": scale})
    # The rate is a tensor of the loop's choosing at every step; 0 here shows that none was forgotten.
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)


def build_layer_decayed_adamw(
    model: nn.Module, config: OptimConfig, layer_decay: float, encoder: nn.Module | None = None
) -> torch.optim.AdamW:
    """Fused AdamW, whose rate falls by `layer_decay` from each block to the one before it (BEiT, MAE).

    The head and the last norm have the full rate, block i of L the `layer_decay ** (L - i)` of it (i from 0), the embedding
    `layer_decay ** (L + 1)`. One-dimensional parameters, tokens and positions have no weight decay; what is frozen is left out.

    Args:
        model: what is trained.
        config: how.
        layer_decay: a block's rate over the next one's.
        encoder: the part of the model that has these blocks, where it is not all of it; it has no head, and its last norm goes
            with its last block. The rest has the full rate.
    """
    decayed = model if encoder is None else encoder
    spared = tokens_and_positions(decayed)
    groups = param_groups_layer_decay(decayed, config.weight_decay, no_weight_decay_list=spared, layer_decay=layer_decay)
    if encoder is None:
        return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)
    for group in groups:
        group["lr_scale"] *= layer_decay  # timm gives the full rate to the last layer it finds, and that is no head here
    inside = {id(parameter) for parameter in encoder.parameters()}
    beside = [parameter for parameter in model.parameters() if id(parameter) not in inside and parameter.requires_grad]
    for weight_decay, is_its in ((config.weight_decay, lambda each: each.ndim > 1), (0.0, lambda each: each.ndim <= 1)):
        if its := [parameter for parameter in beside if is_its(parameter)]:
            groups.append({"params": its, "weight_decay": weight_decay, "lr_scale": 1.0})
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, fused=True)


def build_lars(heads: Sequence[nn.Linear], rates: Sequence[float], config: OptimConfig) -> "SkippingLars":
    """LARS (You et al., 2017) for linear classifiers, each with its own rate: momentum 0.9, trust 0.001, as MAE probes.

    The trust ratio adapts the rate of weights, not of biases.
    """
    groups = []
    for head, rate in zip(heads, rates, strict=True):
        common = {"lr_scale": rate / config.base_lr, "weight_decay": config.weight_decay}
        groups.append({"params": [head.weight], "always_adapt": True} | common)
        groups.append({"params": [head.bias], "always_adapt": False} | common)
    return SkippingLars(groups, lr=0.0, momentum=0.9, trust_coeff=0.001)  # type: ignore[arg-type]


class SkippingLars(Lars):
    """timm's LARS, which leaves a step out where `found_inf` says so, as fused optimisers do."""

    found_inf: Tensor

    def step(self, closure: Any = None) -> Any:
        """One step, or none; asks the device which."""
        return None if self.found_inf.item() else super().step(closure)


def build_sgd(model: nn.Module, momentum: float) -> torch.optim.SGD:
    """Fused SGD on all that is trained, without weight decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.0, momentum=momentum, fused=True)
    if momentum:
        for parameter in trained:  # torch leaves it uninitialised where the very first step is left out
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def linear_to_zero(step: int, *, lr: float, steps: int) -> float:
    """The rate of a step (0-based), from `lr` down to zero after the last one."""
    return lr * (1 - step / steps)


def learning_rate(step: int, *, config: OptimConfig, batch_size: int, steps_per_epoch: int, epochs: int) -> float:
    """The rate of a step (0-based): linear from 0 over the warm-up, then down to `min_lr`."""
    scale = batch_size / 256
    warmup, total = config.warmup_epochs * steps_per_epoch, epochs * steps_per_epoch
    if step < warmup:
        return scale * config.base_lr * step / warmup
    if config.decay == "steps":
        return scale * config.base_lr / 10 ** sum(step >= share * total for share in STEPS)
    if config.decay == "linear":
        left = 1 - (step - warmup) / (total - warmup)
    else:
        left = (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2
    return scale * (config.min_lr + (config.base_lr - config.min_lr) * left)
