"""`evomask train-tokenizer`: starting and resuming it, what is measured after every epoch, and what it leaves."""

import logging
from contextlib import closing
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from evomask.data.spread import spread_images
from evomask.engine import distributed
from evomask.engine.checkpoint import load_checkpoint
from evomask.engine.loop import FirstProcessHooks, Moment, share_out, train
from evomask.engine.metrics import MONITOR, MetricsLog
from evomask.engine.run import begun_by_this_job, check_all_see, create_run, read_run, record_of
from evomask.engine.tokenizer import TrainTokenizerConfig, build_tokenizer, tokenizer_task
from evomask.figures.report import write_report
from evomask.figures.style import save
from evomask.figures.tokens import token_reconstructions
from evomask.models.discrete_vae import DiscreteVAE
from evomask.models.tokenizer import Tokenizer, code_usage
from evomask.models.tokenizers import EXPORT, save_tokenizer
from evomask.recipes.launch import free_folder, taken_folders
from evomask.tasks.result import RESULT, write_result

KIND = "tokenizer"
SHOWN = 16
BATCH_SIZE = 64
PATIENCE = 0.25
"""Share of training after which a codebook that is still collapsed ends the run."""
logger = logging.getLogger("evomask")


def train_tokenizer(config: TrainTokenizerConfig, out: Path | None, command: str) -> Path:
    """Train a tokenizer as configured.

    Args:
        config: what and how.
        out: the folder to make; None takes the first free of runs/tokenizer, runs/tokenizer-2, ...
        command: what to write down as the way to repeat it.

    Returns:
        The run's folder, with the tokenizer itself under `tokenizer/`, result.json and reconstructions.png.

    Raises:
        ValueError: data that cannot be used, a folder that exists, or a codebook that has collapsed.
        Stopped: a signal came; `resume_tokenizer` goes on.
    """
    wanted = Path("runs") / KIND
    with distributed.process_group():
        begun = distributed.from_first(lambda: begun_by_this_job(out, taken_folders(wanted), command))
        if begun is not None:
            return resume_tokenizer(begun)
        run = distributed.from_first(lambda: out if out is not None else free_folder(wanted))
        config = replace(config, train=share_out(config.train))
        model, task = _prepare(config)  # a mistake leaves no folder behind
        distributed.from_first(lambda: create_run(run, config, command, trains=KIND))
        check_all_see(run)
        train(task, config.train, run, [_first_process(config, run, model)])
    return run


def resume_tokenizer(run: Path) -> Path:
    """Go on with the training of a tokenizer exactly where it stopped."""
    with distributed.process_group():
        with distributed.agreed():
            config = read_run(run, TrainTokenizerConfig)
        model, task = _prepare(config)
        train(task, config.train, run, [_first_process(config, run, model)], resume=True)
    return run


def is_tokenizer_run(folder: Path) -> bool:
    """Whether the folder is that of a tokenizer's training."""
    return record_of(folder).get("trains") == KIND


def load_trained(run: Path) -> tuple[DiscreteVAE, TrainTokenizerConfig]:
    """The tokenizer of a run with its newest weights, in evaluation mode, and the run's configuration."""
    config = read_run(run, TrainTokenizerConfig)
    model = build_tokenizer(config)
    model.load_state_dict(load_checkpoint(run)["model"])
    return model.eval(), config


def restored_from_tokens(tokenizer: Tokenizer, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a tokenizer with a decoder makes of images.

    Args:
        tokenizer: in evaluation mode.
        images: (n, C, H * stride, W * stride) uint8.

    Returns:
        (n, C, H * stride, W * stride) uint8, and the tokens (n, H, W) long.
    """
    ids, restored = [], []
    with torch.no_grad():
        for part in images.split(BATCH_SIZE):
            ids.append(tokenizer.ids(part / 255))
            decoded = tokenizer.decode(ids[-1])
            assert decoded is not None
            restored.append((255 * decoded).round().to(torch.uint8))
    return torch.cat(restored), torch.cat(ids)


def _prepare(config: TrainTokenizerConfig):
    with distributed.agreed():
        model = build_tokenizer(config)
        return model, tokenizer_task(config, model)


def _first_process(config: TrainTokenizerConfig, run: Path, model: DiscreteVAE) -> FirstProcessHooks:
    return FirstProcessHooks([_Measurements(config, run, model)], model, model)


class _Measurements:
    """After every epoch a row of RUN/monitor.jsonl: `perplexity`, `codes_used` and `psnr` in dB. After the last, the results.

    Raises:
        ValueError: the codebook has collapsed.
    """

    def __init__(self, config: TrainTokenizerConfig, run: Path, model: DiscreteVAE):
        self._config, self._run, self._model = config, run, model

    def __call__(self, moment: Moment) -> None:
        images = self._images
        if not len(images):  # no file can be read: the loader is about to say so
            return
        device = next(self._model.parameters()).device
        self._model.eval()
        restored, ids = restored_from_tokens(self._model, images.to(device))
        error = mse_loss(restored.float() / 255, images.to(device) / 255)
        measured = code_usage(ids, self._model.vocabulary) | {"psnr": -10 * error.log10().item()}
        with closing(MetricsLog(self._run, moment.step, MONITOR)) as log:
            log.write({"step": moment.step, "epoch": moment.epoch} | measured)
        said = "perplexity {perplexity:.1f}, {codes_used:.1f}% of the tokens used, PSNR {psnr:.2f} dB".format(**measured)
        logger.info("after epoch %d: %s", moment.epoch, said)
        if moment.epoch >= PATIENCE * self._config.train.epochs and measured["perplexity"] < self._config.least_perplexity:
            raise ValueError(
                f"the codebook has collapsed: {moment.epoch} epochs on, images are told in {measured['perplexity']:.1f} of "
                f"{self._model.vocabulary} tokens (--least-perplexity {self._config.least_perplexity:g}), and a BEiT would "
                "learn next to nothing from them. Begin anew with another --optim.base-lr, with more images or more varied "
                "ones, or with fewer levels"
            )
        if moment.epoch == self._config.train.epochs:
            self._finish(images, restored.cpu(), measured)

    def _finish(self, images: Tensor, restored: Tensor, measured: dict[str, float]) -> None:
        save_tokenizer(self._model, self._run / EXPORT)
        write_result(self._run / RESULT, "train-tokenizer", measured, {"tokenizer": self._config})
        height, width = self._config.image_size
        grid = (height // self._model.stride, width // self._model.stride)
        chosen = torch.linspace(0, len(images) - 1, min(SHOWN, len(images))).long()
        save(token_reconstructions(images[chosen], restored[chosen], grid), self._run / "reconstructions.png")
        write_report(self._run)

    @cached_property
    def _images(self) -> Tensor:
        """(n, C, H, W) uint8, the same after every epoch."""
        config = self._config
        source = config.data.source(config.image_size, config.model.in_chans, config.train.seed)
        return spread_images(source, config.image_size, config.model.in_chans, config.measured)[0]
