"""`--loop.compile on`: what an evaluation trains is the same, block by block compiled."""

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from evomask.cli import main
from evomask.engine.metrics import read_metrics

DATA = "--encoder untrained:demo --workers 0 --loop.epochs 1 --loop.log-every 1 --loop.device cpu --optim.base-lr 0.01"
TASKS = {
    "finetune": "--scenes 50 --loop.batch-size 16 --optim.warmup-epochs 0",
    "segmentation": "--scenes 8 --loop.batch-size 4 --crop 32 32 --sides 32 32 --stride 32 32 --head-channels 8"
    " --auxiliary-channels 4 --iterations-per-epoch 2",
    "detection": "--scenes 8 --loop.batch-size 4 --image-size 32 --detector.channels 8 --detector.roi-samples 8"
    " --detector.proposals 10",
}


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # the compiler looks at it for its own purposes
@pytest.mark.parametrize("task", TASKS)
def test_compiled_blocks_learn_the_same(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be traced is an error."""
    compiled: list[nn.Module] = []
    plain = nn.Module.compile

    def compile_without_generating_code(self: nn.Module, **options: Any) -> None:
        compiled.append(self)
        plain(self, backend="aot_eager", fullgraph=True, **options)

    monkeypatch.setattr(nn.Module, "compile", compile_without_generating_code)
    losses = []
    for switch in ("off", "on"):
        out = tmp_path / switch
        assert main(["evaluate", task, *DATA.split(), *TASKS[task].split(), "--loop.compile", switch, "--out", str(out)]) == 0
        losses.append([row["loss"] for row in read_metrics(out)])
        assert bool(compiled) == (switch == "on")
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)
