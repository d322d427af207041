"""BatchNorm over several processes is BatchNorm over their batches together. Real processes: tests/distributed."""

import pytest
import torch
from torch import nn

from evomask.engine import shared_norm
from evomask.engine.shared_norm import SharedBatchNorm2d, share_batch_norms


def test_two_processes_are_one_with_both_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_norm.distributed, "world_size", lambda: 2)
    monkeypatch.setattr(shared_norm, "total", lambda tensor: 2 * tensor)  # the other has the same images
    torch.manual_seed(0)
    own, weight = torch.randn(3, 4, 2, 5), torch.randn(3, 4, 2, 5)
    shared, plain = SharedBatchNorm2d(4), nn.BatchNorm2d(4)
    for norm in (shared, plain):
        nn.init.uniform_(norm.weight, generator=torch.Generator().manual_seed(1))
    here, both = own.clone().requires_grad_(), own.repeat(2, 1, 1, 1).requires_grad_()
    found, expected = shared(here), plain(both)
    torch.testing.assert_close(found, expected[:3])
    torch.testing.assert_close(dict(shared.named_buffers()), dict(plain.named_buffers()))
    (found * weight).sum().backward()
    (expected * weight.repeat(2, 1, 1, 1)).sum().backward()
    assert here.grad is not None and both.grad is not None
    torch.testing.assert_close(here.grad, both.grad[:3])
    shared.eval(), plain.eval()
    torch.testing.assert_close(shared(own), plain(own))


def test_all_norms_of_a_model_are_shared_and_keep_their_names() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, eps=0.1, momentum=0.5), nn.ReLU()))
    names = list(model.state_dict())
    nn.init.constant_(model[1][0].weight, 3.0)  # type: ignore[index, arg-type]
    share_batch_norms(model)
    norm = model[1][0]  # type: ignore[index]
    assert isinstance(norm, SharedBatchNorm2d)
    assert (norm.eps, norm.momentum, norm.weight.tolist()) == (0.1, 0.5, [3.0] * 4)
    assert list(model.state_dict()) == names
