"""The paper's tables: which encoders are compared, by what, and what the paper reports; and what the paper leaves open.

A row is an encoder, a column an evaluation of it. Rows of Tables VI, VII, IX and X whose encoders are not published, or not as
weights that timm has, are left out; so are Table X's DINO, which was pretrained on landmarks, and Table VI's supervised models,
which were trained from scratch and are no encoders that are fine-tuned. Section V-E's costs are in `costs.py`.
"""

from dataclasses import dataclass, replace

from evomask.engine.pretrain import MaskingConfig
from evomask.recipes.paper import PAPER, PaperRun


@dataclass(frozen=True, kw_only=True)
class Column:
    """An evaluation.

    Attributes:
        title: what stands above.
        evaluation: a name among those of a `Scale`.
        metric: the name of the figure among those of its result.
    """

    title: str
    evaluation: str
    metric: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """An encoder.

    Attributes:
        title: what stands before it.
        encoder: a pretraining; or `untrained:RECIPE`, or weights of timm as `timm:NAME`.
        reported: the paper's figures, one for each column; None where there is none.
        against: the title of the row that it is compared with, pretrained with the same seeds.
        attention_blocks: over so many of twelve blocks attention is averaged; of models with fewer, as many fewer.
    """

    title: str
    encoder: PaperRun | str
    reported: tuple[float | None, ...]
    against: str | None = None
    attention_blocks: int = 6


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        title: what it compares.
        columns: its evaluations.
        rows: its encoders.
    """

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


CLASSIFICATION = Column(title="classification, top-1", evaluation="finetune", metric="top1")
SEGMENTATION = Column(title="segmentation, mIoU", evaluation="segmentation", metric="mIoU")
DETECTION = Column(title="detection, box AP", evaluation="detection", metric="box_AP")
_ACCURACY = Column(title="segmentation, aAcc", evaluation="segmentation", metric="aAcc")

PUBLISHED = {
    "DeiT": "timm:deit_base_patch16_224.fb_in1k",
    "CLIP": "timm:vit_base_patch16_clip_224.openai",
    "DINO": "timm:vit_base_patch16_224.dino",
    "DINO v2": "timm:vit_base_patch14_reg4_dinov2.lvd142m?image_size=224",
    "MAE": "timm:vit_base_patch16_224.mae",
}
"""ViT-B that the paper compares with, as timm has them; DINO v2 with registers, without which its attention is noisy, and
shown images as large as the others are, not of the 518 px that it was made for. MAE's have 1,600 epochs behind them."""

_RANDOM_WEIGHTS = Row(title="random weights", encoder="untrained:vit_small_mae", reported=(71.53, 21.17, 19.31))


def _reported(run: PaperRun, table: str, columns: tuple[Column, ...]) -> tuple[float | None, ...]:
    """The figures that stand in a table, which `PAPER` lists by table and task."""
    rows = [row for tables, row in run.reported.items() if table in tables.split(", ")]
    found = {task: figure for row in rows for task, figure in row.items()}
    return tuple(found.get(column.evaluation) for column in columns)


def _row(title: str, name: str, table: str, columns: tuple[Column, ...], against: str | None = None) -> Row:
    return Row(title=title, encoder=PAPER[name], reported=_reported(PAPER[name], table, columns), against=against)


_THREE, _TWO = (CLASSIFICATION, SEGMENTATION, DETECTION), (CLASSIFICATION, SEGMENTATION)
_EPOCHS, _RATIOS = (100, 200, 400, 800), {"25": "0.25", "50": "0.5", "": "0.75"}

TABLE_I = Table(
    title="masks, by epochs of pretraining; ViT-S",
    columns=_THREE,
    rows=(
        _RANDOM_WEIGHTS,
        *(
            _row(
                f"{masks}, {epochs} epochs",
                f"vit_small_mae_{masks}_{epochs}",
                "I",
                _THREE,
                f"random, {epochs} epochs" if masks != "random" else None,
            )
            for epochs in _EPOCHS
            for masks in ("grid", "random", "block", "evolved")
        ),
    ),
)

TABLE_II = Table(
    title="mask ratios; ViT-S, 300 epochs",
    columns=_TWO,
    rows=tuple(
        _row(
            f"{masks}, {ratio}",
            f"vit_small_mae_{masks}_{f'ratio{percent}_' if percent else ''}300",
            "II",
            _TWO,
            f"random, {ratio}" if masks == "evolved" else None,
        )
        for percent, ratio in _RATIOS.items()
        for masks in ("random", "evolved")
    ),
)

TABLE_III = Table(
    title="hierarchical masks against simple patterns; ViT-S, 300 epochs",
    columns=_TWO,
    rows=(
        _row("large block", "vit_small_mae_large_block_300", "III", _TWO),
        _row("hierarchical, only deep", "vit_small_mae_deep_300", "III", _TWO, against="large block"),
        _row("grid-like", "vit_small_mae_grid_like_300", "III", _TWO),
        _row("hierarchical, only shallow", "vit_small_mae_shallow_300", "III", _TWO, against="grid-like"),
    ),
)

# Of the three protocols the paper does not say which; its figures are near Table X's of Medium.
_OXFORD = Column(title="retrieval on Oxford, mAP", evaluation="oxford", metric="medium_map")
TABLE_IV = Table(
    title="a fixed depth against one that evolves; ViT-S, 300 epochs",
    columns=(_OXFORD, SEGMENTATION, CLASSIFICATION),
    rows=tuple(
        Row(title=title, encoder=PAPER[f"vit_small_mae_{masks}_300"], reported=figures, against=against)
        for title, masks, figures, against in (
            ("only shallow", "shallow", (57.11, 39.86, 79.05), None),
            ("only deep", "deep", (55.07, 39.01, 78.76), "only shallow"),
            ("evolved", "evolved", (57.41, 41.37, 80.41), "only shallow"),
        )
    ),
)

TABLE_V = Table(
    title="evolved masks for longer; ViT-S",
    columns=_THREE,
    rows=tuple(
        _row(f"{epochs} epochs", f"vit_small_mae_evolved_{epochs}", "V", _THREE, f"{before} epochs" if before else None)
        for before, epochs in zip((None, *_EPOCHS, 1600), (*_EPOCHS, 1600, 2400), strict=True)
    ),
)

_EVOLVED_BASE = PAPER["vit_base_mae_evolved_300"]
TABLE_VI = Table(
    title="self-supervised ViT-B",
    columns=(Column(title="linear probe, top-1", evaluation="linear-probe", metric="top1"), CLASSIFICATION),
    rows=(
        Row(title="DINO", encoder=PUBLISHED["DINO"], reported=(74.6, 82.8)),
        # The paper's has 300 epochs, the published weights 1,600.
        Row(title="MAE", encoder=PAPER["vit_base_mae_random_300"], reported=(64.4, 83.6)),
        Row(title="evolved, 200 epochs", encoder=PAPER["vit_base_mae_evolved_200"], reported=(63.4, 83.8), against="MAE"),
        Row(title="evolved, 300 epochs", encoder=_EVOLVED_BASE, reported=(66.1, 84.9), against="MAE"),
    ),
)

_TOKENIZER_FIGURES = {
    "DeiT": (48.81, 67.28, 78.03, 82.33, 50.86, 67.50, 80.09, 83.82),
    "CLIP": (51.54, 64.44, 78.94, 83.75, 47.87, 66.71, 80.98, 80.94),
    "DINO": (49.40, 66.23, 73.55, 79.01, 46.28, 64.35, 80.17, 82.90),
    "DINO v2": (50.56, 67.91, 78.63, 83.88, 49.99, 65.86, 79.26, 82.62),
    "MAE": (48.21, 67.15, 76.46, 81.80, 48.72, 67.06, 81.40, 84.08),
}
TABLE_VII = Table(
    title="ViT-B as visual tokenizers of a language model",
    columns=tuple(
        Column(title=f"{title}, {how}", evaluation=f"{evaluation}{'-joint' if how == 'tuned' else ''}", metric="faithful")
        for how in ("frozen", "tuned")
        for title, evaluation in (
            ("VQA", "vqa"),
            ("counting", "counting"),
            ("identification on COCO", "identification"),
            ("identification on VCR", "identification-vcr"),
        )
    ),
    rows=(
        *(Row(title=name, encoder=PUBLISHED[name], reported=figures) for name, figures in _TOKENIZER_FIGURES.items()),
        Row(
            title="evolved",
            encoder=_EVOLVED_BASE,
            reported=(49.75, 67.42, 78.85, 82.54, 50.94, 68.36, 81.79, 84.91),
            against="MAE",
        ),
    ),
)

TABLE_VIII = Table(
    title="three hosts before and after; 200 epochs",
    columns=(
        CLASSIFICATION,
        Column(title="classification, top-5", evaluation="finetune", metric="top5"),
        SEGMENTATION,
        _ACCURACY,
    ),
    rows=tuple(
        Row(
            title=title,
            encoder=PAPER[name],
            reported=figures,
            against=title.partition(",")[0] if title.endswith("evolved") else None,
        )
        for title, name, figures in (
            ("MAE", "vit_small_mae_random_200", (79.20, 94.61, 38.81, 79.61)),
            ("MAE, evolved", "vit_small_mae_evolved_200", (80.06, 95.10, 40.23, 79.87)),
            ("BEiT", "vit_small_beit_block_200", (79.05, 94.57, 38.39, 79.31)),
            ("BEiT, evolved", "vit_small_beit_evolved_200", (79.87, 94.80, 39.78, 79.83)),
            ("SimMIM", "vit_small_simmim_cells_200", (78.51, 94.18, 38.13, 79.15)),
            ("SimMIM, evolved", "vit_small_simmim_evolved_200", (79.21, 94.79, 39.45, 79.73)),
        )
    ),
)

_SEGMENTATION_FIGURES = {"DeiT": (40.11, 80.22, 51.38), "MAE": (41.24, 80.62, 52.77), "CLIP": (35.54, 77.65, 46.56)}
TABLE_IX = Table(
    title="segmentation by ViT-B",
    columns=(SEGMENTATION, _ACCURACY, Column(title="segmentation, mAcc", evaluation="segmentation", metric="mAcc")),
    rows=(
        *(Row(title=name, encoder=PUBLISHED[name], reported=figures) for name, figures in _SEGMENTATION_FIGURES.items()),
        Row(title="evolved", encoder=_EVOLVED_BASE, reported=(47.26, 81.97, 58.92), against="MAE"),
    ),
)

_RETRIEVAL_FIGURES = {
    "DeiT": (56.17, 72.40, 31.09, 54.46),
    "CLIP": (45.42, 58.68, 15.32, 39.22),
    "MAE": (55.38, 76.55, 30.74, 50.06),
}
TABLE_X = Table(
    title="landmark retrieval; which encoder the paper's is, it does not say: ViT-B here",
    columns=tuple(
        Column(title=f"{level}, {place}, mAP", evaluation=place.lower(), metric=f"{level.lower()}_map")
        for level in ("Medium", "Hard")
        for place in ("Oxford", "Paris")
    ),
    rows=(
        *(Row(title=name, encoder=PUBLISHED[name], reported=figures) for name, figures in _RETRIEVAL_FIGURES.items()),
        Row(title="evolved", encoder=_EVOLVED_BASE, reported=(59.06, 79.43, 33.24, 58.87), against="MAE"),
    ),
)


def _open(title: str, variants: dict[str, MaskingConfig], blocks: dict[str, int] | None = None) -> Table:
    """What the paper does not try: variants of evolved masks after 300 epochs, against the first of them and random masks."""
    first, evolved = next(iter(variants)), PAPER["vit_small_mae_evolved_300"]
    rows = [Row(title="random masks", encoder=PAPER["vit_small_mae_random_300"], reported=(None,) * 2)]
    for name, masking in variants.items():
        run = evolved
        if masking != evolved.masking:
            run = replace(evolved, masking=masking, masks=f"evolved_{name.replace(' ', '_')}", reported={})
        against = "random masks" if name == first else first
        tapped = (blocks or {}).get(name, Row.attention_blocks)
        rows.append(Row(title=name, encoder=run, reported=(None,) * 2, against=against, attention_blocks=tapped))
    return Table(title=title, columns=_TWO, rows=tuple(rows))


_BLOCKS = {"half of the blocks": 6, "a quarter": 3, "all": 12}

OPEN = {
    "affinity": _open(
        "how attention becomes similarity",
        {name: MaskingConfig(affinity=name) for name in ("attention", "popularity", "profile")},
    ),
    "symmetry": _open(
        "how the attention of a pair is made of both directions: by their mean, the lesser or the greater",
        {"mean": MaskingConfig()} | {name: MaskingConfig(affinity=name) for name in ("mutual", "either")},
    ),
    "linkage": _open(
        "similarity to a merged node",
        {"weighted": MaskingConfig(linkage="weighted"), "average": MaskingConfig(linkage="average")},
    ),
    "layers": _open("over which first blocks attention is averaged", dict.fromkeys(_BLOCKS, MaskingConfig()), _BLOCKS),
    "truncation": _open(
        "what is taken of the last group",
        {"subtree": MaskingConfig(truncation="subtree"), "scattered": MaskingConfig(truncation="scattered")},
    ),
    "growth": _open(
        "whether depth grows by epoch or by step",
        {"by epoch": MaskingConfig(depth_grows="epoch"), "by step": MaskingConfig(depth_grows="step")},
    ),
}
"""Questions that the paper leaves open."""

TABLES = {
    "table1": TABLE_I,
    "table2": TABLE_II,
    "table3": TABLE_III,
    "table4": TABLE_IV,
    "table5": TABLE_V,
    "table6": TABLE_VI,
    "table7": TABLE_VII,
    "table8": TABLE_VIII,
    "table9": TABLE_IX,
    "table10": TABLE_X,
} | OPEN
"""All of them by name. A further one is a Table and a word here."""
