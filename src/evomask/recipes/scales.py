"""At what size a table is rerun: the paper's, or one that a single machine can afford. A scale turns rows into commands."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

from evomask.engine.pretrain import MaskingConfig
from evomask.recipes.paper import PAPER, PaperRun
from evomask.recipes.tables import PUBLISHED, Column, Row, Table

CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
"""Its classes, by their values in the masks; 11 is void."""

CAMVID_FILE = "camvid.txt"
"""Where they are written to, below the folder of what is reproduced."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """An evaluation at a scale.

    Attributes:
        about: on which data.
        options: of `evomask evaluate`, the task's name first.
        data: further ones, with {data} for the folder of all data and {out} for that of what is reproduced.
        metrics: the paper's figure -> what stands for it in this result, where it is another one.
    """

    about: str
    options: tuple[str, ...]
    data: tuple[str, ...]
    metrics: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A size.

    Attributes:
        about: what it is for.
        images: the folder of images to pretrain on, below that of all data.
        epochs: the share of the paper's epochs.
        recipes: the paper's recipe -> the one that stands for it; none: the paper's own.
        options: of `evomask pretrain`, by the paper's recipe.
        blocks: of the encoder.
        patches: of an image.
        tokenizer: arguments of `evomask train-tokenizer` for BEiT's, or the name of one that is there.
        stand_ins: published weights, or the name of a pretraining -> the pretraining that stands for it here; rows of other
            published weights are left out. None: nothing is stood in for.
        evaluations: by name. Columns of those that are missing are left out.
    """

    about: str
    images: str
    epochs: float
    recipes: Mapping[str, str]
    options: Mapping[str, tuple[str, ...]]
    blocks: int
    patches: int
    tokenizer: tuple[str, ...] | str
    stand_ins: Mapping[str, PaperRun] | None
    evaluations: Mapping[str, Evaluation]

    def encoder(self, row: Row) -> PaperRun | str | None:
        """What a row is of at this scale; None: it is left out."""
        if self.stand_ins is None:
            return row.encoder
        if isinstance(row.encoder, PaperRun):
            return self.stand_ins.get(row.encoder.name, row.encoder)
        return self.stand_ins.get(row.encoder) if row.encoder.startswith("timm:") else row.encoder

    def columns(self, table: Table) -> list[Column]:
        """Those of a table that there are at this scale: two that are measured by the same figure here are one."""
        found: dict[tuple[str, str], Column] = {}
        for column in table.columns:
            if column.evaluation in self.evaluations:
                metric = self.evaluations[column.evaluation].metrics.get(column.metric, column.metric)
                found.setdefault((column.evaluation, metric), column)
        return list(found.values())

    def pretraining(self, run: PaperRun, attention_blocks: int = Row.attention_blocks) -> tuple[str, ...]:
        """Arguments of `evomask pretrain`, but for data, seed, tokenizer and folder."""
        base = run.base.__name__
        tapped = max(1, attention_blocks * self.blocks // 12)
        if not self.recipes and run.name in PAPER and attention_blocks == Row.attention_blocks:
            return (run.name,)
        return (
            *(self.recipes.get(base, base), *self.options.get(base, ())),
            *_masking(run.masking, self.patches),
            *(() if tapped == Row.attention_blocks else ("--host.attention-blocks", str(tapped))),
            *("--train.epochs", str(max(1, round(run.epochs * self.epochs)))),
        )


def _masking(masking: MaskingConfig, patches: int) -> tuple[str, ...]:
    """Strategy, ratio, and what else is not as usual; a least area, which is meant of 196 patches, brought to these."""
    if masking.strategy == "block":
        masking = replace(masking, min_block=max(1, masking.min_block * patches // 196))
    usual, said = MaskingConfig(), ("strategy", "ratio")
    names = [each.name for each in fields(masking)]
    chosen = [name for name in names if name in said or getattr(masking, name) != getattr(usual, name)]
    return tuple(word for name in chosen for word in (f"--masking.{name.replace('_', '-')}", str(getattr(masking, name))))


def _two_folders(name: str) -> tuple[str, ...]:
    return ("--train", f"{{data}}/{name}/train", "--val", f"{{data}}/{name}/val")


def _coco(val: str, val_images: str) -> tuple[str, ...]:
    train = ("--train", "{data}/coco/annotations/instances_train2017.json", "--train-images", "{data}/coco/train2017")
    return (*train, "--val", f"{{data}}/{val}", "--val-images", f"{{data}}/{val_images}")


def _questions(questions: str, annotations: str, images: str) -> tuple[str, ...]:
    """With {} for the split, as each of the two parts of the data calls it."""
    return tuple(
        word
        for split, option in enumerate(("train", "val"))
        for part, file in (("questions", questions), ("annotations", annotations), ("images", images))
        for word in (f"--{option}-{part}", "{data}/" + file.split("|")[split])
    )


_VAL2017 = "coco/annotations/instances_val2017.json"
_VQAV2 = _questions(
    "vqav2/v2_OpenEnded_mscoco_train2014_questions.json|vqav2/v2_OpenEnded_mscoco_val2014_questions.json",
    "vqav2/v2_mscoco_train2014_annotations.json|vqav2/v2_mscoco_val2014_annotations.json",
    "coco/train2014|coco/val2014",
)
_EASY_VQA = _questions(
    "easy-vqa/train_questions.json|easy-vqa/test_questions.json",
    "easy-vqa/train_annotations.json|easy-vqa/test_annotations.json",
    "easy-vqa/train|easy-vqa/test",
)


def _with_vicuna(joint: str) -> dict[str, Evaluation]:
    suffix = joint.replace("-", "_")
    return {
        f"vqa{joint}": Evaluation(about="VQAv2", options=(f"vqa_vicuna{suffix}",), data=_VQAV2),
        f"counting{joint}": Evaluation(
            about="GVTBench", options=(f"counting_vicuna{suffix}",), data=_coco("GVTBench/coco_oc.json", "coco/val2017")
        ),
        f"identification{joint}": Evaluation(
            about="GVTBench", options=(f"identification_vicuna{suffix}",), data=_coco("GVTBench/coco_mci.json", "coco/val2017")
        ),
        f"identification-vcr{joint}": Evaluation(
            about="GVTBench", options=(f"identification_vicuna{suffix}",), data=_coco("GVTBench/vcr_mci.json", "vcr1images")
        ),
    }


def _landmarks(place: str) -> Evaluation:
    learnt = ("--train", "{data}/GLDv2/train_clean.csv")
    tested = ("--revisited", f"{{data}}/{place}/gnd_{place}.pkl")
    return Evaluation(
        about=f"revisited {place}, learnt on GLDv2-clean", options=("retrieval_landmarks",), data=(*learnt, *tested)
    )


_PAPER = Scale(
    about="the paper's own, for a cluster of GPUs: its data sets, models and epochs",
    images="imagenet/train",
    epochs=1.0,
    recipes={},
    options={},
    blocks=12,
    patches=196,
    tokenizer="hf:facebook/flava-image-codebook",
    stand_ins=None,
    evaluations={
        "finetune": Evaluation(about="ImageNet-1K", options=("finetune",), data=_two_folders("imagenet")),
        "linear-probe": Evaluation(about="ImageNet-1K", options=("linear-probe",), data=_two_folders("imagenet")),
        "segmentation": Evaluation(
            about="ADE20K", options=("segmentation_ade20k",), data=("--ade20k", "{data}/ADEChallengeData2016")
        ),
        "detection": Evaluation(about="COCO, 1x", options=("detection_1x",), data=_coco(_VAL2017, "coco/val2017")),
        "oxford": _landmarks("roxford5k"),
        "paris": _landmarks("rparis6k"),
        **_with_vicuna(""),
        **_with_vicuna("-joint"),
    },
)

_SMALL_RECIPES = {
    "vit_small_mae": "vit_tiny_mae_112",
    "vit_small_beit": "vit_tiny_beit_112",
    "vit_small_simmim": "vit_tiny_simmim_112",
}


def _small_language(joint: str) -> dict[str, Evaluation]:
    """The small language model learns together with the resampler, and where that is `joint` with the encoder, too."""
    more, strict = ("--tune-encoder", "True", "--cached", "False") if joint else (), {"faithful": "strict"}
    training_images = _coco("coco/annotations/instances_train2017.json", "coco/train2017")
    by_heart, about = ("--loop.epochs", "200", "--validate-every", "200"), "100 training images of COCO, by heart, strict"
    return {
        f"vqa{joint}": Evaluation(about="easy-vqa, strict", options=("vqa_easy", *more), data=_EASY_VQA, metrics=strict),
        f"counting{joint}": Evaluation(
            about=about, options=("counting_small", *by_heart, *more), data=training_images, metrics=strict
        ),
        f"identification{joint}": Evaluation(
            about=about, options=("identification_small", *by_heart, *more), data=training_images, metrics=strict
        ),
    }


def _products(half: str) -> Evaluation:
    labels = ("--labels", "{data}/grocery/labels.csv", "--half", half)
    metrics = {"medium_map": "map", "hard_map": "map"}
    return Evaluation(about=f"the {half} half of the groceries", options=("retrieval_small",), data=labels, metrics=metrics)


_SMALL_EVALUATIONS = {
    "finetune": Evaluation(
        about="Imagenette, a tenth of the labels", options=("finetune_few_labels",), data=_two_folders("imagenette112")
    ),
    "linear-probe": Evaluation(
        about="Imagenette",
        options=(
            *("linear-probe", "--cached", "True", "--pooling", "mean", "--loop.batch-size", "256", "--validate-every", "10"),
            *("--rates", "1", "3", "10", "30", "100"),
        ),
        data=_two_folders("imagenette112"),
    ),
    "segmentation": Evaluation(
        about="CamVid at 96 x 128 px",
        options=(
            *("segmentation_small", "--crop", "64", "64", "--sides", "96", "128", "--stride", "43", "43"),
            *("--loop.epochs", "20", "--validate-every", "20", "--optim.base-lr", "0.032"),
        ),
        data=(
            *("--train", "{data}/camvid/images/train", "--train-masks", "{data}/camvid/annotations/train"),
            *("--val", "{data}/camvid/images/val", "--val-masks", "{data}/camvid/annotations/val"),
            *("--classes", f"{{out}}/{CAMVID_FILE}", "--ignored", "11"),
        ),
    ),
    "detection": Evaluation(
        about="100 + 100 images of COCO at 128 px; of training images, since 100 teach nothing about others",
        options=("detection_small",),
        data=_coco(_VAL2017, "coco/val2017"),
        metrics={"box_AP": "train_box_AP"},
    ),
    "oxford": _products("first"),
    "paris": _products("second"),
    **_small_language(""),
    **_small_language("-joint"),
}

_STAND_INS = {PUBLISHED["MAE"]: PAPER["vit_small_mae_random_300"]} | {
    # There is one size of encoder at a small scale, so what is pretrained for Tables I to V serves VI to X, too.
    f"vit_base_mae_{run}": PAPER[f"vit_small_mae_{run}"]
    for run in ("random_300", "evolved_200", "evolved_300")
}

_MINI = Scale(
    about="ViT-Tiny with 14 x 14 patches of 8 px on Imagenette, a quarter of the paper's epochs: for one GPU",
    images="imagenette112/train",
    epochs=0.25,
    recipes=_SMALL_RECIPES,
    options={},
    blocks=12,
    patches=196,
    tokenizer=("--image-size", "112", "112"),
    stand_ins=_STAND_INS,
    evaluations=_SMALL_EVALUATIONS,
)

_MICRO_ENCODER = ("--host.encoder.image-size", "64", "64", "--host.encoder.width", "128", "--host.encoder.depth", "6")
_MICRO_TRAINING = (
    *("--host.encoder.heads", "4", "--train.batch-size", "128", "--optim.base-lr", "2e-3", "--optim.warmup-epochs", "1"),
    *("--monitor.every", "0"),
)
_MICRO_DECODER = ("--host.decoder-width", "64", "--host.decoder-depth", "2", "--host.decoder-heads", "4")
_MICRO_MAE = (*_MICRO_ENCODER, *_MICRO_DECODER, *_MICRO_TRAINING)

_MICRO = Scale(
    about="a ViT of 6 blocks of 128 with 8 x 8 patches on Imagenette, 3% of the paper's epochs: for a CPU overnight",
    images="imagenette112/train",
    epochs=0.03,
    recipes=_SMALL_RECIPES,
    options={
        "vit_small_mae": _MICRO_MAE,
        "vit_small_beit": (*_MICRO_ENCODER, *_MICRO_TRAINING),
        "vit_small_simmim": (*_MICRO_ENCODER, *_MICRO_TRAINING),
    },
    blocks=6,
    patches=64,
    tokenizer=(
        *("--image-size", "64", "64", "--model.width", "64", "--train.epochs", "3", "--train.batch-size", "64"),
        *("--optim.base-lr", "4e-3", "--optim.warmup-epochs", "0.25"),
    ),
    stand_ins=_STAND_INS,
    evaluations=_SMALL_EVALUATIONS,
)

SCALES = {"paper": _PAPER, "mini": _MINI, "micro": _MICRO}
"""By name. A further one is a Scale and a word here."""
