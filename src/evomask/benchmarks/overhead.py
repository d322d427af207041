"""What evolved masks cost: a training step with them against one with random masks, and the parts of the difference."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from evomask.benchmarks.comparison import Comparison, compare
from evomask.data.scenes import Scenes
from evomask.engine import distributed
from evomask.engine.loop import use_bfloat16
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.pretrain import DataConfig, PretrainStep, normalise
from evomask.masking import EvolvedMasking, RandomMasking, build_hierarchy
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What is trained, and on what.

    Attributes:
        vit: timm's name; images are of 224 px, and the decoder is MAE's, 8 blocks of 512.
        patch_size: in pixels.
        batch_size: images a step.
        turns: of all candidates, over which medians are taken.
        precision: "float32", "bfloat16"; "auto" takes bfloat16 on a GPU that has it.
        device: "auto", "cpu", "cuda".
    """

    vit: str = "vit_small_patch16_224"
    patch_size: int = 16
    batch_size: int = 16
    turns: int = 5
    precision: str = "auto"
    device: str = "auto"

    def __post_init__(self):
        if min(self.batch_size, self.turns) < 1:
            raise ValueError("--batch-size and --turns must be at least 1")

    def host_config(self) -> MAEConfig:
        """The MAE that is trained."""
        return MAEConfig(encoder=ViTConfig(name=self.vit, patch_size=self.patch_size))

    def batch(self, device: torch.device, patches: int) -> tuple[Tensor, Tensor, Tensor]:
        """As the loader hands it over: images uint8, noise, indices."""
        scenes = Scenes(224, self.batch_size)
        images = torch.stack([scenes.image(index) for index in range(self.batch_size)])
        noise = torch.rand(self.batch_size, patches, generator=torch.Generator().manual_seed(0))
        return images.to(device), noise.to(device), torch.arange(self.batch_size)

    def autocast(self, device: torch.device) -> torch.autocast:
        """As in training."""
        return torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(self.precision, device))


@dataclass(frozen=True, kw_only=True)
class OverheadConfig(ModelConfig):
    """A step of MAE.

    Attributes:
        progress: share of training, which sets the depth of the masks.
    """

    progress: float = 0.5


def compare_masks(config: OverheadConfig) -> list[Comparison]:
    """One table: whole steps, and what evolved masks add, piece by piece, as shares of the step with random masks."""
    device = distributed.pick_device(config.device)
    torch.manual_seed(0)
    host, data = config.host_config().build().to(device).train(), DataConfig()
    optimizer = build_adamw(host, OptimConfig())
    batch = config.batch(device, host.grid[0] * host.grid[1])
    evolved = EvolvedMasking()

    with torch.no_grad(), config.autocast(device):
        tokens = host.embed(normalise(batch[0], data.mean, data.std))
        affinity = host.affinity(tokens)

    def attention() -> None:
        with torch.no_grad(), config.autocast(device):
            host.affinity(tokens)

    def step(masking: Any) -> None:
        task_step = PretrainStep(host, masking, data.mean, data.std)
        with config.autocast(device):
            loss = task_step(batch, config.progress).loss
        update(loss, host, optimizer)

    candidates = {
        "step with random masks": lambda: step(RandomMasking()),
        "step with evolved masks": lambda: step(evolved),
        "attention alone": attention,
        "tree alone": lambda: build_hierarchy(affinity),
        "tree, cut and selection": lambda: evolved(batch[1], host.grid, config.progress, affinity),
    }
    title = (
        f"{config.vit}, {config.batch_size} images, {'bfloat16' if use_bfloat16(config.precision, device) else 'float32'}, ms"
    )
    return [compare(title, candidates, device, config.turns)]


def update(loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """What every step ends with: gradients, clipped, and a step of the optimiser."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
