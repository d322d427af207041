"""Commands to look at models and runs: show, report, explore."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from evomask.cli.options import check_free, choose_first, parse


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """Draw what a model does to image files, or how a run went.

    Attributes:
        images: image files; none for the pictures of a run, stages, health, loss and gradients.
        encoder: a run or a checkpoint of it, an evaluation that tuned its encoder, a folder in the format of timm or
            transformers, a weights file, timm:NAME, hf:NAME, or untrained:RECIPE or untrained:RUN. What weights do not say may
            follow:
            weights.pth?heads=4&image_size=96&mean=0.5&std=0.2
            stages, health, loss, reconstruction and difficulty need a run, gradients the folder of a fine-tuning. distance,
            difficulty and gradients compare several: say --encoder again.
        out: the picture to write; its ending says the format, png, webp, svg or pdf. None: PICTURE.png
        dpi: pixels an inch.
    """

    images: tyro.conf.Positional[tuple[Path, ...]] = ()
    encoder: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    out: Path | None = None
    dpi: int = 150


def show(arguments: list[str]) -> None:
    """PICTURE --encoder SPEC IMAGE...: masks, trees, attention, reconstructions of image files; how a run went."""
    from evomask.figures.style import PICTURE_FORMATS, save
    from evomask.recipes.show import PICTURES, draw_picture

    kinds = {name: picture.draw.__doc__ for name, picture in PICTURES.items()}
    kind = choose_first(arguments, kinds, "picture", "evomask show")
    options = parse(ShowOptions, arguments[1:], f"evomask show {kind}")
    out = options.out or Path(f"{kind}.png")
    if out.suffix not in PICTURE_FORMATS:
        raise ValueError(f"--out must end in one of {' '.join(PICTURE_FORMATS)}, not {out.name!r}")
    if options.dpi < 10:
        raise ValueError(f"--dpi must be at least 10, not {options.dpi}")
    check_free(out, "--out")
    figure = draw_picture(kind, options.encoder, options.images)
    save(figure, out, options.dpi)
    print(out)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Write a page about a run, or one that compares several.

    Attributes:
        runs: folders of runs.
        out: of several, the page to write. None: comparison.html. The page about one run is RUN/report.html.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]]
    out: Path | None = None


def report(arguments: list[str]) -> None:
    """RUN...: one self-contained page about a run, or about several side by side."""
    options = parse(ReportOptions, arguments, "evomask report")
    if len(options.runs) > 1:
        from evomask.figures.comparison import write_comparison

        print(write_comparison(options.runs, options.out or Path("comparison.html")))
        return
    if not options.runs:
        raise ValueError("name a run, or several to compare; see evomask report --help")
    if options.out is not None:
        raise ValueError("--out is of several runs: the page about one is RUN/report.html")
    from evomask.figures.report import write_report

    print(write_report(options.runs[0]))


@dataclass(frozen=True, kw_only=True)
class ExploreOptions:
    """Look at images through encoders, in the browser.

    Attributes:
        encoders: to choose from, as --encoder of `evomask show`; the first two are shown side by side. More can be typed in on
            the page, and runs in ./runs are offered.
        host: the address to listen on. Only this machine can reach the default; whoever reaches another one can have any file
            of weights on this machine read.
        port: None: the first free one from 7860 on.
        browser: whether to open the page.
    """

    encoders: tyro.conf.Positional[tuple[str, ...]] = ()
    host: str = "127.0.0.1"
    port: int | None = None
    browser: bool = True


def explore(arguments: list[str]) -> None:
    """[ENCODER ...]: an interactive page: drop an image, move the depth, see partition, mask, attention, reconstruction."""
    options = parse(ExploreOptions, arguments, "evomask explore")
    from evomask.recipes.explore import explore

    explore(options.encoders, options.host, options.port, options.browser)
