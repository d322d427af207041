"""BatchNorm whose statistics are those of the images of all processes, on any device."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from evomask.engine import distributed


class _Total(torch.autograd.Function):
    """The sum over all processes, whose gradient is the sum of all their gradients."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        whole = own.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        whole = grads[0].clone()
        dist.all_reduce(whole)
        return whole


def total(own: Tensor) -> Tensor:
    """The sum of a tensor over all processes, differentiable."""
    return _Total.apply(own)  # type: ignore[return-value]


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over what all processes pass at a time, equally much each. torch's own is for GPUs only."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        if not self.training or distributed.world_size() == 1:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        own = input.float()
        count = own.numel() // own.shape[1] * distributed.world_size()
        mean = total(own.sum(dim=(0, 2, 3))) / count
        centred = own - mean.view(1, -1, 1, 1)
        variance = total(centred.square().sum(dim=(0, 2, 3))) / count
        with torch.no_grad():
            momentum = self.momentum or 0.0
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / max(1, count - 1), momentum)
            self.num_batches_tracked += 1
        normed = centred * (variance + self.eps).rsqrt().view(1, -1, 1, 1)
        return (normed * self.weight.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(input.dtype)


def share_batch_norms(model: nn.Module) -> None:
    """Make every BatchNorm2d of a model one over all processes, in place; names in `state_dict` stay."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                shared.load_state_dict(child.state_dict())
                setattr(module, name, shared)
