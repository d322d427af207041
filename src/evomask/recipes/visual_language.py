"""The paper's Table VII: an encoder as the visual tokenizer of a large language model, on GVTBench; and a small one for a CPU.

What the paper and GVT's code say (Section V-B; Wang et al., 2023): Vicuna-7B, frozen; 224 px, random crops and flips; a
resampler of 32 latents; AdamW for 20,000 steps at a rate of 1e-6. The batch is not said: 64 here, of which 20,000 steps are
three passes over the questions of VQAv2. Which questions the models of the other columns are trained on is not said either:
here they are made of COCO's training set, in GVTBench's wording, and gone over for about as many steps. Figures are the
paper's, of a ViT-B that is pretrained with evolved masks on ImageNet-1K, beside those of MAE; none has been reproduced.
"""

from dataclasses import replace
from typing import TypeVar

from evomask.engine.loop import TrainConfig
from evomask.engine.optim import OptimConfig
from evomask.models.resampler import ResamplerConfig
from evomask.tasks.counting import CountingConfig
from evomask.tasks.identification import IdentificationConfig
from evomask.tasks.visual_language import VisualLanguageConfig
from evomask.tasks.vqa import VqaConfig

Config = TypeVar("Config", bound=VisualLanguageConfig)


def _as_in_the_paper(config: Config, epochs: int) -> Config:
    """A rate of 1e-6 at a batch of 64, and it is the large models that are evaluated in hours: once, at the end."""
    return replace(
        config,
        language_model="lmsys/vicuna-7b-v1.5",
        resampler=ResamplerConfig(),
        crop_scale=(0.5, 1.0),
        standardise=False,
        optim=OptimConfig(base_lr=4e-6, warmup_epochs=0.1, betas=(0.9, 0.999)),
        loop=TrainConfig(epochs=epochs, batch_size=64, checkpoint_activations=True),
        shuffled=False,
        validate_every=epochs,
    )


def _learning_along(config: Config, epochs: int) -> Config:
    """A small language model that is trained together with the resampler, from the first image on.

    It five times as fast: else the resampler, too, learns which words are common before it has learnt to look, and all images
    become one to it (`docs/results/language.md`).
    """
    return replace(
        config,
        language="full",
        language_rate=5.0,
        optim=replace(config.optim, base_lr=8e-4),
        small=replace(config.small, epochs=0),
        new_tokens=8,
        val_limit=1_000,
        loop=replace(config.loop, epochs=epochs),
    )


def identification_small() -> IdentificationConfig:
    """Identification with a small language model that learns along: 12 minutes of one CPU core on the embedded scenes.

    Command: `evomask evaluate identification_small --encoder RUN`

    The encoder has to know the things, which one that has only restored scenes hardly does: `evomask evaluate
    segmentation_small --encoder RUN --scenes 4000 --loop.epochs 12` leaves one that does. Not in the paper; what came out:
    `docs/results/language.md`.
    """
    return replace(_learning_along(IdentificationConfig(), epochs=10), scenes=4_000, cached=True)


def counting_small() -> CountingConfig:
    """Counting with a small language model that learns along, on the embedded scenes: 25 minutes of one CPU core.

    One scene in four asks anything.

    Command: `evomask evaluate counting_small --encoder RUN`

    For the encoder see `identification_small`. Not in the paper; what came out: `docs/results/language.md`.
    """
    return replace(_learning_along(CountingConfig(), epochs=10), scenes=60_000, cached=True)


def vqa_easy() -> VqaConfig:
    """VQA on easy-vqa, coloured shapes of 64 px, with a small language model that learns along: 10 minutes of one CPU core.

    Command: `evomask evaluate vqa_easy --encoder RUN --train-questions train_questions.json --train-annotations
    train_annotations.json --train-images train --val-questions test_questions.json --val-annotations test_annotations.json
    --val-images test`

    With a language model that has learnt to read before and is then frozen, as in the paper: `--language frozen
    --small.epochs 8 --loop.epochs 10`. What came out: `docs/results/language.md`.

    Data: https://github.com/vzhou842/easy-VQA, whose files are in VQAv2's layout. Not in the paper.
    """
    config = _learning_along(VqaConfig(), epochs=8)
    return replace(config, small=replace(config.small, facts=3), crop_scale=(0.7, 1.0), validate_every=2)


def vqa_vicuna() -> VqaConfig:
    """VQA on COCO with Vicuna-7B, the encoder frozen, as in the paper's Table VII: 49.75% (MAE 48.21%).

    Command: `evomask evaluate vqa_vicuna --encoder RUN --train-questions v2_OpenEnded_mscoco_train2014_questions.json
    --train-annotations v2_mscoco_train2014_annotations.json --train-images train2014 --val-questions
    v2_OpenEnded_mscoco_val2014_questions.json --val-annotations v2_mscoco_val2014_annotations.json --val-images val2014`

    The paper's figure is `faithful`. GVT's code penalises repetition in VQA by 1.5, and in nothing else.
    """
    return replace(_as_in_the_paper(VqaConfig(), epochs=3), repetition_penalty=1.5)


def vqa_vicuna_joint() -> VqaConfig:
    """VQA on COCO with Vicuna-7B, the encoder trained jointly, as in the paper's Table VII: 50.94% (MAE 48.72%).

    Command: `evomask evaluate vqa_vicuna_joint --encoder RUN --train-questions ...`, as for `vqa_vicuna`.
    """
    return replace(vqa_vicuna(), tune_encoder=True)


def counting_vicuna() -> CountingConfig:
    """Object counting with Vicuna-7B, the encoder frozen, as in the paper's Table VII: 67.42% (MAE 67.15%).

    Command: `evomask evaluate counting_vicuna --encoder RUN --train instances_train2017.json --train-images train2017
    --val GVTBench/coco_oc.json --val-images val2017`

    The paper's figure is `faithful`. Of the two files named coco_oc.json one has "1" for 54% of its answers and one for 86%:
    `faithful_majority` says which it is, and what such a figure is worth.
    """
    return replace(_as_in_the_paper(CountingConfig(), epochs=4), balanced=False)


def counting_vicuna_joint() -> CountingConfig:
    """Object counting with Vicuna-7B, the encoder trained jointly, as in the paper's Table VII: 68.36% (MAE 67.06%).

    Command: `evomask evaluate counting_vicuna_joint --encoder RUN --train ...`, as for `counting_vicuna`.
    """
    return replace(counting_vicuna(), tune_encoder=True)


def identification_vicuna() -> IdentificationConfig:
    """Identification with Vicuna-7B, the encoder frozen, as in the paper's Table VII: 78.85% on COCO, 82.54% on VCR.

    Command: `evomask evaluate identification_vicuna --encoder RUN --train instances_train2017.json --train-images train2017
    --val GVTBench/coco_mci.json --val-images val2017`, or for VCR `--val GVTBench/vcr_mci.json --val-images vcr1images`

    MAE has 76.46% and 81.80%. The paper's figure is `faithful`. The spelling of VCR's questions gives their answers away, and
    is mended; `--as-published True` leaves it.
    """
    return _as_in_the_paper(IdentificationConfig(), epochs=2)


def identification_vicuna_joint() -> IdentificationConfig:
    """Identification with Vicuna-7B, the encoder trained jointly, as in the paper's Table VII: 81.79% on COCO, 84.91% on VCR.

    Command: `evomask evaluate identification_vicuna_joint --encoder RUN --train ...`, as for `identification_vicuna`.

    MAE has 81.40% and 84.08%.
    """
    return replace(identification_vicuna(), tune_encoder=True)
