"""Loading images: evomask's way against MAE's recipe (Pillow, torchvision's transforms), same files, same workers.

And the same images from folders and from shards.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from evomask.benchmarks.comparison import Comparison, compare
from evomask.benchmarks.layouts import cache_in, compare_layouts, exhaust
from evomask.data.decode import UnreadableImage, decode
from evomask.data.image_folder import ImageFolder
from evomask.data.layouts import open_encoded
from evomask.data.loader import load_batches
from evomask.data.pretraining import PretrainingImages
from evomask.data.sampler import StepSampler
from evomask.data.scenes import Scenes
from evomask.data.spread import spread
from evomask.engine.pretrain import DataConfig, normalise

IMAGENET_SIZE = (375, 500)
GRAIN = 16.0
"""Standard deviation of the noise laid on scenes: without it their files would be a third of the size of photographs'."""

CPU = torch.device("cpu")
DATA = DataConfig()


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """Image files, cropped and flipped at random.

    Attributes:
        root: a folder of images. None: scenes, as JPEG files of ImageNet's usual size, 500 x 375 px and about 95 kB.
        images: how many of them, at most; whole batches are taken.
        size: of a crop, in pixels.
        batch_size: images.
        workers: processes that load, in the tables that say so; in the others there are none.
        laid_out: images in a folder, in tar and in parquet shards, of which as many are read as in the other tables.
        turns: of all candidates, over which medians are taken.
    """

    root: Path | None = None
    images: int = 256
    size: int = 224
    batch_size: int = 64
    workers: int = 2
    laid_out: int = 4_000
    turns: int = 7

    def __post_init__(self):
        if min(self.images, self.size, self.batch_size, self.workers, self.turns) < 1:
            raise ValueError("--images, --size, --batch-size, --workers and --turns must be at least 1")
        if self.laid_out < self.batch_size:
            raise ValueError(f"--laid-out {self.laid_out} images fill no batch of {self.batch_size}")


def compare_loaders(config: LoaderConfig) -> list[Comparison]:
    """Milliseconds that loading an image takes: decoding, cropping, all of it, with workers, and in each layout.

    evomask hands over uint8, and the device normalises it during training; MAE's recipe normalises each image after it is
    cropped, and that is part of its times. One row is therefore evomask with normalisation on the same thread of the CPU.

    Raises:
        ValueError: fewer images than a batch, or a file that cannot be read.
    """
    with TemporaryDirectory() as temporary, cache_in(Path(temporary) / "cache"), _one_thread():
        folder = open_encoded(config.root or _save_scenes(Path(temporary) / "scenes", config.images))
        if not isinstance(folder, ImageFolder):
            raise ValueError(f"{config.root} holds shards: give a folder of image files, which are put into shards here")
        count = min(config.images, len(folder)) // config.batch_size * config.batch_size
        if count == 0:
            raise ValueError(
                f"{min(config.images, len(folder))} images fill no batch of {config.batch_size}: lower --batch-size"
            )
        # From all over the folder, where it holds more.
        paths = [Path(folder.name(index)) for index in spread(count, len(folder))]
        for path in paths:
            try:
                read(path)
            except UnreadableImage as error:
                raise ValueError(f"{path} cannot be read: {error}") from error
        return [
            _compare_whole(paths, config),
            _compare_decoding(paths, config),
            _compare_cropping(paths[: config.batch_size], config),
            _compare_with_workers(paths, config),
            *compare_layouts(
                [path.read_bytes() for path in paths],
                Path(temporary) / "layouts",
                laid_out=config.laid_out,
                images=min(count, config.laid_out),
                size=config.size,
                batch_size=config.batch_size,
                workers=config.workers,
                turns=config.turns,
            ),
        ]


def _compare_whole(paths: list[Path], config: LoaderConfig) -> Comparison:
    def normalised() -> Iterator[Tensor]:
        return (normalise(images, DATA.mean, DATA.std) for images, *_ in _batches(paths, config))

    candidates = {
        "evomask": lambda: exhaust(_batches(paths, config)),
        "MAE's recipe": lambda: exhaust(_recipe_batches(paths, config)),
        "evomask, normalised on the CPU": lambda: exhaust(normalised()),
        "evomask, Pillow alone": lambda: exhaust(_batches(paths, config, read=read_with_pillow)),
    }
    title = f"loading {len(paths)} files, one thread, ms an image"
    return compare(title, candidates, CPU, config.turns, units=len(paths))


def _compare_decoding(paths: list[Path], config: LoaderConfig) -> Comparison:
    candidates = {
        "evomask": lambda: exhaust(map(read, paths)),
        "MAE's recipe": lambda: exhaust(map(read_like_recipe, paths)),
        "evomask, Pillow alone": lambda: exhaust(map(read_with_pillow, paths)),
    }
    title = "decoding alone, one thread, ms an image"
    return compare(title, candidates, CPU, config.turns, units=len(paths))


def _compare_cropping(paths: list[Path], config: LoaderConfig) -> Comparison:
    """On images in memory."""
    ours = _crops(paths, config, cache(read))
    recipe = RecipeImages(paths, config.size, cache(read_like_recipe))
    candidates = {
        "evomask": lambda: exhaust(ours[0, index] for index in range(len(paths))),
        "MAE's recipe": lambda: exhaust(recipe[index] for index in range(len(paths))),
    }
    title = "cropping alone, one thread, ms an image"
    return compare(title, candidates, CPU, config.turns, units=len(paths))


def _compare_with_workers(paths: list[Path], config: LoaderConfig) -> Comparison:
    """Workers are started anew in every turn, as they are in every epoch of MAE's recipe."""
    candidates = {
        "evomask": lambda: exhaust(_batches(paths, config, config.workers)),
        "MAE's recipe": lambda: exhaust(_recipe_batches(paths, config, config.workers)),
    }
    title = f"loading {len(paths)} files, --workers {config.workers}, ms an image"
    return compare(title, candidates, CPU, config.turns, units=len(paths))


def read(path: Path) -> Tensor:
    """Decode as in training."""
    return decode(path.read_bytes())


def read_with_pillow(path: Path) -> Tensor:
    """Decode as where nothing faster is installed."""
    return decode(path.read_bytes(), decoders={})


def read_like_recipe(path: Path) -> Image.Image:
    """Decode as torchvision's ImageFolder does, which MAE's recipe takes."""
    with path.open("rb") as file:
        return Image.open(file).convert("RGB")


class RecipeImages(Dataset[Tensor]):
    """What MAE does to images in pretraining: it crops and flips Pillow's images at random and normalises them.

    He et al., Masked autoencoders are scalable vision learners, 2022, appendix A.1.
    """

    def __init__(self, paths: list[Path], size: int, read: Callable[[Path], Image.Image] = read_like_recipe):
        self._paths, self._read = paths, read
        self._transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, scale=(0.2, 1.0), interpolation=transforms.InterpolationMode.BICUBIC),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(mean=DATA.mean, std=DATA.std),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """(3, size, size) float."""
        return self._transform(self._read(self._paths[index]))  # pyright: ignore


class _Files:
    """An image source: files, read as is asked for."""

    def __init__(self, paths: list[Path], read: Callable[[Path], Tensor]):
        self.classes: list[str] = []
        self._paths, self._read = paths, read

    def __len__(self) -> int:
        return len(self._paths)

    def image(self, index: int) -> Tensor:
        return self._read(self._paths[index])

    def label(self, index: int) -> int | None:
        return None

    def name(self, index: int) -> str:
        return str(self._paths[index])


def _crops(paths: list[Path], config: LoaderConfig, read: Callable[[Path], Tensor]) -> PretrainingImages:
    return PretrainingImages(_Files(paths, read), (config.size, config.size), channels=3, patches=196, seed=0)


def _batches(
    paths: list[Path], config: LoaderConfig, workers: int = 0, read: Callable[[Path], Tensor] = read
) -> Iterator[tuple[Tensor, ...]]:
    sampler = StepSampler(len(paths), config.batch_size, 0, range(len(paths) // config.batch_size))
    return load_batches(_crops(paths, config, read), sampler, workers, "cpu")


def _recipe_batches(paths: list[Path], config: LoaderConfig, workers: int = 0) -> Iterable[Tensor]:
    images = RecipeImages(paths, config.size)
    return DataLoader(images, config.batch_size, shuffle=True, num_workers=workers, drop_last=True)


def _save_scenes(folder: Path, count: int) -> Path:
    folder.mkdir()
    scenes, noise = Scenes(IMAGENET_SIZE, count), np.random.default_rng(0)
    for index in range(count):
        pixels = scenes.image(index).permute(1, 2, 0).numpy() + noise.normal(0, GRAIN, (*IMAGENET_SIZE, 1))
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        image.save(folder / f"{index:05}.jpg", quality=90)
    return folder


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
