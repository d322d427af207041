"""What evolved masks cost: a training step with them against one with random masks, and the parts of the difference."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms.v2 import functional

from evomask.analysis.agreement import mean_adjusted_rand_index
from evomask.benchmarks.comparison import Comparison, compare
from evomask.data.layouts import open_images
from evomask.data.scenes import Scenes
from evomask.engine import distributed
from evomask.engine.loop import use_bfloat16
from evomask.engine.optim import OptimConfig, build_adamw
from evomask.engine.pretrain import DataConfig, PretrainStep, normalise
from evomask.masking import EvolvedMasking, Hierarchy, RandomMasking, build_hierarchy
from evomask.models.encoders import load_encoder
from evomask.models.mae import MAEConfig
from evomask.models.vit import ViTConfig, embed_patches, mean_patch_attention


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

    def title(self, device: torch.device) -> str:
        """What is compared."""
        precision = "bfloat16" if use_bfloat16(self.precision, device) else "float32"
        return f"{self.vit}, {self.batch_size} images, {precision}"

    def autocast(self, device: torch.device) -> torch.autocast:
        """As in training."""
        return torch.autocast(device.type, torch.bfloat16, enabled=use_bfloat16(self.precision, device))


@dataclass(frozen=True, kw_only=True)
class OverheadConfig(ModelConfig):
    """A step of MAE, and how far the trees move where the scan is made cheaper.

    Attributes:
        progress: share of training, which sets the depth of the masks.
        compile: whether the model is compiled.
        encoder: SPEC of a trained encoder, whose trees are compared; times are always those of `vit`.
        images: a folder of images for that; None: scenes.
    """

    progress: float = 0.5
    compile: bool = False
    encoder: str | None = None
    images: Path | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.batch_size % 4:
            raise ValueError(f"--batch-size must be a multiple of 4, for up to 4 masks a tree, not {self.batch_size}")


@dataclass(frozen=True, kw_only=True)
class Scan:
    """How attention is come by; the defaults are the paper's."""

    blocks: int = 6
    stride: int = 1
    masks_per_tree: int = 1


OPTIONS = {
    "evolved, 2 masks a tree": Scan(masks_per_tree=2),
    "evolved, 4 masks a tree": Scan(masks_per_tree=4),
    "evolved, attention of 3 blocks": Scan(blocks=3),
    "evolved, attention of 1 block": Scan(blocks=1),
    "evolved, every 2nd row and column": Scan(stride=2),
    "evolved, all of these (2, 3)": Scan(blocks=3, stride=2, masks_per_tree=2),
}
"""The cheaper scans that are measured."""

WITH_EVOLVED = ("evolved masks", "random masks", "attention alone", "tree, cut and selection")
"""The candidates of `compare_with_evolved`."""

AGREEMENT_IMAGES = 128


def compare_masks(config: OverheadConfig) -> list[Comparison]:
    """One table: whole steps, and what evolved masks add, piece by piece, over the step with random masks.

    Its title says the floor too: operations of the scan over those of the step.
    """
    device = distributed.pick_device(config.device)
    agreement = None if config.encoder is None else agreement_with_exact_trees(config, device)
    title, candidates = _candidates(config, device)
    table = compare(title, candidates, device, config.turns)
    if agreement is None:
        return [table]
    rows = [replace(row, agreement=agreement.get(row.name)) for row in table.rows]
    stranger = agreement["another image"]
    title = f"{table.title}; ARI of trees with {config.encoder} (with another image's trees: {stranger:.2f})"
    return [Comparison(title, rows)]


def compare_with_evolved(config: OverheadConfig) -> Comparison:
    """Ratios to the step with evolved masks: of the one with random masks, and of what evolved masks consist of."""
    device = distributed.pick_device(config.device)
    title, candidates = _candidates(config, device)
    return compare(title, {name: candidates[name] for name in WITH_EVOLVED}, device, config.turns)


def _candidates(config: OverheadConfig, device: torch.device) -> tuple[str, Mapping[str, Callable[[], object]]]:
    """A title, and the work by name."""
    torch.manual_seed(0)
    host, data = config.host_config().build().to(device).train(), DataConfig()
    optimizer = build_adamw(host, OptimConfig())
    images, noise, indices = config.batch(device, host.grid[0] * host.grid[1])
    evolved = EvolvedMasking()

    with torch.no_grad(), config.autocast(device):
        tokens = host.embed(normalise(images, data.mean, data.std))
        affinity = host.affinity(tokens)

    def attention() -> None:
        with torch.no_grad(), config.autocast(device):
            host.affinity(tokens)

    def step(masking: Any, scan: Scan) -> None:
        host.attention_blocks, host.scan_stride = scan.blocks, scan.stride
        count = config.batch_size // scan.masks_per_tree
        batch = (images[:count], noise[: count * scan.masks_per_tree].view(count, -1), indices[:count])
        with config.autocast(device):
            loss = PretrainStep(host, masking, data.mean, data.std)(batch, config.progress).loss
        update(loss, host, optimizer)
        host.attention_blocks, host.scan_stride = Scan.blocks, Scan.stride

    candidates = {
        "random masks": lambda: step(RandomMasking(), Scan()),
        "evolved masks": lambda: step(evolved, Scan()),
        "attention alone": attention,
        "tree alone": lambda: build_hierarchy(affinity),
        "tree, cut and selection": lambda: evolved(noise, host.grid, config.progress, affinity),
    } | {name: partial(step, evolved, scan) for name, scan in OPTIONS.items()}
    floor = operations(attention) / operations(candidates["random masks"])
    if config.compile:  # not before the operations are counted
        host.compile()
    return f"{config.title(device)}; attention is {floor:.1%} of the step's operations", candidates


def operations(work: Callable[[], object]) -> int:
    """Multiplications and additions of its matrix products, forward and backward."""
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.get_total_flops()


@torch.no_grad()
def agreement_with_exact_trees(config: OverheadConfig, device: torch.device) -> dict[str, float]:
    """Option -> adjusted Rand index of the cuts with those of the exact trees, by a trained encoder.

    Trees of all images are somewhat alike, since neighbours in the grid are; so the index of another image's trees is there
    too, by which the rest is to be judged.
    """
    assert config.encoder is not None
    encoder = load_encoder(config.encoder)
    vit = encoder.plain_vit().to(device)
    height, width = encoder.image_size
    channels = len(encoder.mean)
    source = Scenes((height, width), AGREEMENT_IMAGES) if config.images is None else open_images(config.images, channels)
    chosen = range(0, len(source), max(1, len(source) // AGREEMENT_IMAGES))[:AGREEMENT_IMAGES]
    crops = [functional.center_crop(functional.resize(source.image(i), [min(height, width)]), [height, width]) for i in chosen]
    pixels = normalise(torch.stack(crops).to(device), encoder.mean, encoder.std)
    tokens = torch.cat([embed_patches(vit, part) for part in pixels.split(16)])

    def trees(scan: Scan) -> Hierarchy:
        parts = [mean_patch_attention(vit, part, scan.blocks, scan.stride) for part in tokens.split(16)]
        return build_hierarchy(torch.cat(parts))

    exact = trees(Scan())
    others = {name: trees(scan) for name, scan in OPTIONS.items()}
    others["evolved masks"] = exact
    others["another image"] = Hierarchy(*(getattr(exact, field.name).roll(1, dims=0) for field in fields(exact)))
    return {name: mean_adjusted_rand_index(exact, other, config.progress) for name, other in others.items()}


def update(loss: Tensor, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """What every step ends with: gradients, clipped, and a step of the optimiser."""
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
