"""How a model is spread over processes: copies whose gradients are averaged (DDP), or shards of it (FSDP2).

Whatever the model, its blocks, those modules that have attention and an MLP, are what is checkpointed, compiled and sharded one
by one, in this order.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from evomask.engine import distributed


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The blocks of a transformer: ViT, BEiT or Swin of timm, and whatever is built alike."""
    return [module for module in model.modules() if hasattr(module, "attn") and hasattr(module, "mlp")]


def checkpoint_activations(model: nn.Module) -> None:
    """Compute what is inside a block a second time in the backward pass, instead of keeping it."""
    for block in blocks_of(model):
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def compile_blocks(model: nn.Module) -> None:
    """Compile every block by itself, in place: names in `state_dict` stay, and blocks of one kind are compiled once."""
    for block in blocks_of(model):
        block.compile(dynamic=False)


def shard(model: nn.Module, device: torch.device, half: bool) -> None:
    """Spread parameters, gradients and the optimiser's state over all processes, in place, before the optimiser is made.

    Args:
        model: on its device.
        device: that device.
        half: compute, wherever the model is called, and send parameters in bfloat16. Gradients are averaged in float32 anyway.

    Raises:
        ValueError: there is only this process, and torchrun has not started it.
    """
    if not torch.distributed.is_initialized():
        raise ValueError("fsdp spreads a model over processes: start them with torchrun, or leave parallel at ddp")
    with distributed.agreed():  # what follows waits for the other processes, and one of them may have failed at its images
        pass
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    blocks = blocks_of(model)
    for module in (*blocks, model):
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if half else None,
            reduce_dtype=torch.float32,
            cast_forward_inputs=module is not model,  # images stay as they are, since the loss is taken of their pixels
        )
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    if half:  # a validation, too, finds its weights in bfloat16
        model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
    for name in ("embed", "affinity"):  # a host is not only called
        if hasattr(model, name):
            register_fsdp_forward_method(model, name)
    if hasattr(model, "affinity"):
        _gather_blocks_for_affinity(model, cast(list[FSDPModule], blocks))


def _gather_blocks_for_affinity(model: Any, blocks: Sequence[FSDPModule]) -> None:
    """Affinity looks into the blocks without calling them. The training pass, which follows it, finds them gathered."""
    affinity = model.affinity

    def affinity_of_gathered_blocks(tokens: Tensor) -> Tensor:
        for block in blocks:
            block.unshard()
        return affinity(tokens)

    model.affinity = affinity_of_gathered_blocks


def is_sharded(model: nn.Module) -> bool:
    """Whether `shard` has been here."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


Step = Callable[[Any, float], Any]


class _StepOf(nn.Module):
    """A step as one forward pass, whatever it asks of the model: this is what DDP hooks.

    It has the parameters that are trained, and no buffers: those are constants, or the same everywhere as in a probe.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], step: Step):
        super().__init__()
        self.trained = nn.ParameterList(parameters)
        self._step = step

    def forward(self, batch: Any, progress: float) -> Any:
        return self._step(batch, progress)


def across_processes(parameters: Sequence[nn.Parameter], step: Step) -> tuple[Step, Callable[[], AbstractContextManager[None]]]:
    """The same step, after whose backward pass gradients are means over all processes; and how to put that off.

    Args:
        parameters: what is trained; every step uses all of them.
        step: one micro-batch -> what has a loss.

    Returns:
        The step, and a context under which gradients are only added up: for all micro-batches but the last. A sharded model
        has no room for that, and averages every time.
    """
    if distributed.world_size() == 1 or isinstance(parameters[0], DTensor):
        return step, nullcontext
    spread = DistributedDataParallel(_StepOf(parameters, step), gradient_as_bucket_view=True)
    return spread, cast(Callable[[], AbstractContextManager[None]], spread.no_sync)


def clip_gradients(parameters: list[nn.Parameter], largest: float | None) -> Tensor:
    """Scale gradients down to this norm over all of them, wherever they lie; returns the norm before."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, largest or float("inf"))
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def load_whole(model: nn.Module, into: nn.Module) -> None:
    """Bring the weights of a sharded model together in a plain one of the first process. All processes call it."""
    weights = whole_weights(model)
    if distributed.rank() == 0:
        into.load_state_dict(weights)


def whole_weights(model: nn.Module) -> dict[str, Tensor]:
    """On the CPU, of a model that may be sharded: all of them in the first process. All processes call it."""
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return cast(dict[str, Tensor], weights)
