"""Commands that make a run, go on with it and hand on its weights: demo, pretrain, train-tokenizer, resume, export."""

import inspect
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from evomask.cli.errors import is_first_process
from evomask.cli.evaluation import print_result
from evomask.cli.options import choose_first, parse


def demo(arguments: list[str]) -> None:
    """Pretrain on the embedded scenes, evaluate, and write a report: minutes on two CPU cores."""
    options = parse(DemoOptions, arguments, "evomask demo")
    from evomask.recipes.demonstration import run_demo

    run_demo(options.out)


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """Pretrain a small ViT on the embedded scenes, compare it with the untrained one, and write a report.

    Attributes:
        out: the folder to make. None: the first free of runs/demo, runs/demo-2, ...
    """

    out: Path | None = None


def pretrain(arguments: list[str]) -> None:
    """RECIPE [--data.root DIR ...]: pretrain as a recipe says; any leaf of it can be overridden."""
    from evomask.engine.pretrain import PretrainConfig
    from evomask.recipes import RECIPES, launch

    name = choose_first(arguments, {name: recipe.__doc__ for name, recipe in RECIPES.items()}, "recipe", "evomask pretrain")
    recipe = RECIPES[name]

    @dataclass(frozen=True, kw_only=True)
    class PretrainOptions:
        """Pretrain.

        Attributes:
            out: the folder to make for the run. None: the first free of runs/RECIPE, runs/RECIPE-2, ...
            config: the recipe.
        """

        out: Path | None = None
        # A recipe says which host it is: without sub-commands, a host's options are those of the recipe's.
        config: Annotated[tyro.conf.AvoidSubcommands[PretrainConfig], tyro.conf.arg(name="")]

    default = PretrainOptions(config=recipe())
    options = parse(PretrainOptions, arguments[1:], f"evomask pretrain {name}", default, inspect.getdoc(recipe))
    _print(launch.start(options.config, options.out, command=shlex.join(["evomask", "pretrain", *arguments])))


def train_tokenizer(arguments: list[str]) -> None:
    """[--data.root DIR ...]: train a tokenizer on your own images, for BEiT to predict its tokens."""
    from evomask.engine.tokenizer import TrainTokenizerConfig
    from evomask.recipes import tokenizer

    @dataclass(frozen=True, kw_only=True)
    class TokenizerOptions:
        """Train a tokenizer.

        Attributes:
            out: the folder to make for the run. None: the first free of runs/tokenizer, runs/tokenizer-2, ...
            config: the tokenizer, and how it is trained.
        """

        out: Path | None = None
        config: Annotated[TrainTokenizerConfig, tyro.conf.arg(name="")]

    about = "Train a tokenizer on your own images: `evomask pretrain vit_tiny_beit --host.tokenizer RUN` predicts its tokens."
    default = TokenizerOptions(config=TrainTokenizerConfig())
    options = parse(TokenizerOptions, arguments, "evomask train-tokenizer", default, about)
    command = shlex.join(["evomask", "train-tokenizer", *arguments])
    _print(tokenizer.train_tokenizer(options.config, options.out, command))


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """A run.

    Attributes:
        run: the run's folder.
    """

    run: tyro.conf.Positional[Path]


def resume(arguments: list[str]) -> None:
    """RUN: go on exactly where a run, or an evaluation that trains, stopped."""
    options = parse(RunOptions, arguments, "evomask resume")
    from evomask.recipes import evaluation, launch, tokenizer

    if evaluation.is_evaluation(options.run):
        print_result(evaluation.resume_evaluation(options.run))
    elif tokenizer.is_tokenizer_run(options.run):
        _print(tokenizer.resume_tokenizer(options.run))
    else:
        _print(launch.resume(options.run))


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Write a run's weights as another library loads them.

    Attributes:
        run: the run's folder.
        to: the library.
        out: the folder to make. None: RUN/export/LIBRARY.
    """

    run: tyro.conf.Positional[Path]
    to: Literal["timm", "transformers"]
    out: Path | None = None


def export(arguments: list[str]) -> None:
    """RUN --to timm|transformers: weights as those libraries load them."""
    options = parse(ExportOptions, arguments, "evomask export")
    from evomask.models.encoders import EXPORT
    from evomask.recipes import hooks, launch

    folder = options.out or options.run / EXPORT / options.to
    host, config = launch.load_host(options.run)
    hooks.export(host, config, options.to, folder)
    print(folder)


def _print(result: object) -> None:
    if is_first_process():
        print(result)
