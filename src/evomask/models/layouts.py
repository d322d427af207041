"""How the files of well-known code bases name the weights of an encoder, and how those names become timm's.

To read a further layout is a row of LAYOUTS.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from timm.data.constants import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    IMAGENET_INCEPTION_MEAN,
    IMAGENET_INCEPTION_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)
from torch import Tensor

from evomask.models.layout_steps import (
    Weights,
    add_dimensions,
    fold_class_position,
    join_gates,
    join_queries_keys_values,
    shift_downsampling,
)

Renames = tuple[tuple[str, str], ...]
IMAGENET = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
HALF = (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_STD)
CLIP = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)

BESIDE = (
    r"mask_token$|^decoder|^head\.(\d|mlp|last_layer)|^(lm_head|cls_pt_layers|pooler\.dense)\."
    r"|(relative_position_index|position_ids|attn_mask)$"
)
"""Of keys that stand among an encoder's and are none of its weights: mask tokens, decoders, heads of pretraining, buffers."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way to name the weights.

    Attributes:
        family: which architecture of timm's it is: a key of `architecture.FAMILIES`.
        marks: patterns; each must be found in some key of the file. They tell layouts with the same `patches` apart.
        patches: the key of the patch embedding. What stands before it in a file stands before all keys of the encoder.
        renames: (pattern, replacement), in this order, of the encoder's keys without what stands before them.
        others: (pattern, replacement), of keys beside the encoder's that belong to it all the same, such as a classifier.
        finish: what remains to be done once the keys are renamed, in this order.
        activation: in the MLPs, as timm calls it. No weight tells it.
        eps: of the norms. No weight tells it.
        normalisation: mean and std of the images that such models are customarily trained on.
    """

    family: str
    marks: tuple[str, ...]
    patches: str = "patch_embed.proj.weight"
    renames: Renames = ()
    others: Renames = ()
    finish: tuple[Callable[[Weights], None], ...] = ()
    activation: str = "gelu"
    eps: float = 1e-6
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET


@dataclass(frozen=True)
class EncoderWeights:
    """The weights of an encoder under timm's names.

    Attributes:
        layout: a key of LAYOUTS.
        weights: by timm's names.
        beside: how many tensors of the file are none of the encoder's, by a part of their names that tells what they are.
    """

    layout: str
    weights: Weights
    beside: Counter[str]


def read_layout(weights: Mapping[str, Tensor]) -> EncoderWeights:
    """Find out which layout it is, and rename.

    Args:
        weights: all tensors of a file.

    Raises:
        ValueError: it is none of LAYOUTS.
    """
    name, prefix = _recognise(weights)
    layout = LAYOUTS[name]
    renamed: Weights = {}
    beside: Counter[str] = Counter()
    for key, tensor in weights.items():
        own = key.startswith(prefix)
        inner = key.removeprefix(prefix) if own else key
        rules = layout.renames if own else layout.others
        if own and (found := re.search(BESIDE, inner)):
            beside[found[0].strip(".")] += 1
            continue
        if not own and not any(re.search(pattern, inner) for pattern, _ in rules):
            beside[re.split(r"[._]", inner)[0] if inner.startswith("decoder") else inner.split(".")[0]] += 1
            continue
        for pattern, replacement in rules:
            inner = re.sub(pattern, replacement, inner)
        renamed[inner] = tensor
    for step in layout.finish:
        step(renamed)
    return EncoderWeights(name, renamed, beside)


def _recognise(weights: Mapping[str, Tensor]) -> tuple[str, str]:
    """The layout, and what stands before the encoder's keys: of teacher and student, the teacher's."""
    for name, layout in LAYOUTS.items():
        ends = (layout.patches, f".{layout.patches}")
        prefixes = [key.removesuffix(layout.patches) for key in weights if key == ends[0] or key.endswith(ends[1])]
        if prefixes and all(any(re.search(mark, key) for key in weights) for mark in layout.marks):
            return name, min(prefixes, key=lambda prefix: ("student" in prefix, len(prefix)))
    raise ValueError(
        f"holds no encoder of a known layout: it begins with {', '.join(list(weights)[:3])}; known are {', '.join(LAYOUTS)}"
    )


_VIT_BLOCK = r"blocks\.0\.attn\.qkv\.weight$"
_SWIN_BLOCK = r"layers\.0\.blocks\.0\..*relative_position_bias_table$"
_DINOV2: Renames = (
    (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # blocks in chunks, as FSDP wants them
    (r"\.mlp\.w12\.", ".mlp.fc1."),
    (r"\.mlp\.w3\.", ".mlp.fc2."),
    (r"^register_tokens$", "reg_token"),
)
_OPENAI_CLIP: Renames = (
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^proj$", "projection"),
    (r"^conv1\.", "patch_embed.proj."),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ls_([12])\.", r".ls\1."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
# transformers writes the names of its version 4 to files, and has others in memory since version 5: both are read.
_TRANSFORMERS_BLOCK: Renames = (
    (r"\.(layernorm_before|layer_norm1)\.", ".norm1."),
    (r"\.(layernorm_after|layer_norm2)\.", ".norm2."),
    (r"\.(attention\.attention\.|attention\.self\.|attention\.|self_attn\.)(query|q_proj)\.", ".attn.q."),
    (r"\.(attention\.attention\.|attention\.self\.|attention\.|self_attn\.)(key|k_proj)\.", ".attn.k."),
    (r"\.(attention\.attention\.|attention\.self\.|attention\.|self_attn\.)(value|v_proj)\.", ".attn.v."),
    (r"\.(attention\.output\.dense|attention\.o_proj|self_attn\.out_proj)\.", ".attn.proj."),
    (r"(blocks\.\d+)\.(?:attention\.)*(?:self\.)?(?:relative_position_bias\.)?relative_position_bias_table$",
     r"\1.attn.relative_position_bias_table"),
    (r"\.(intermediate\.dense|mlp\.weights_in)\.", ".mlp.fc1."),
    (r"\.(output\.dense|mlp\.weights_out|mlp\.down_proj)\.", ".mlp.fc2."),
    (r"\.mlp\.gate_proj\.", ".mlp.gate."),
    (r"\.mlp\.up_proj\.", ".mlp.up."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.lambda_([12])$", r".gamma_\1"),
)  # fmt: skip
_TRANSFORMERS: Renames = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^embeddings\.norm\.", "patch_embed.norm."),
    (r"^(encoder\.relative_position_bias|shared_position_bias)\.", "rel_pos_bias."),
    (r"^encoder\.layers\.(\d+)\.(blocks|downsample)\.", r"layers.\1.\2."),  # of Swin
    (r"^(encoder\.layer|layers)\.(\d+)\.(?!blocks|downsample)", r"blocks.\2."),
    (r"^layernorm\.", "norm."),
    (r"^pooler\.layernorm\.", "fc_norm."),
    *_TRANSFORMERS_BLOCK,
)
_TRANSFORMERS_CLIP: Renames = (
    (r"^embeddings\.class_embedding$", "cls_token"),
    (r"^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    *_TRANSFORMERS_BLOCK,
)
_TRANSFORMERS_PATCHES = "embeddings.patch_embeddings.projection.weight"
_CLASSIFIER: Renames = ((r"^classifier\.", "head."),)

LAYOUTS: dict[str, Layout] = {
    "CLIP of OpenAI": Layout(
        family="vit", patches="conv1.weight",
        marks=(r"class_embedding$", r"resblocks\.0\.attn\.in_proj_weight$", r"^input_resolution$"),
        renames=_OPENAI_CLIP, finish=(add_dimensions,), activation="quick_gelu", eps=1e-5, normalisation=CLIP,
    ),
    "CLIP of open_clip": Layout(
        family="vit", patches="conv1.weight", marks=(r"class_embedding$", r"resblocks\.0\.attn\.in_proj_weight$"),
        renames=_OPENAI_CLIP, finish=(add_dimensions,), eps=1e-5, normalisation=CLIP,
    ),
    "CLIP of transformers": Layout(
        family="vit", patches="embeddings.patch_embedding.weight", marks=(r"class_embedding$",),
        renames=_TRANSFORMERS_CLIP, others=((r"^visual_projection\.", "head."),),
        finish=(join_queries_keys_values, add_dimensions), activation="quick_gelu", eps=1e-5, normalisation=CLIP,
    ),
    "Swin of transformers": Layout(
        family="swin", patches=_TRANSFORMERS_PATCHES, marks=(_SWIN_BLOCK,),
        renames=_TRANSFORMERS, others=_CLASSIFIER, finish=(join_queries_keys_values, shift_downsampling), eps=1e-5,
    ),
    "BEiT of transformers": Layout(
        family="beit", patches=_TRANSFORMERS_PATCHES, marks=(r"\.lambda_1$",),
        renames=_TRANSFORMERS, others=(*_CLASSIFIER, (r"^layernorm\.", "norm.")),
        finish=(join_queries_keys_values,), eps=1e-12, normalisation=HALF,
    ),
    "DINOv2 of transformers": Layout(
        family="vit", patches=_TRANSFORMERS_PATCHES, marks=(r"\.layer_scale1\.lambda1$",),
        renames=_TRANSFORMERS, finish=(join_queries_keys_values, join_gates, fold_class_position),
    ),
    "DeiT of transformers, distilled": Layout(
        family="vit", patches=_TRANSFORMERS_PATCHES, marks=(r"distillation_token$",),
        renames=_TRANSFORMERS, others=((r"^cls_classifier\.", "head."), (r"^distillation_classifier\.", "head_dist.")),
        finish=(join_queries_keys_values,), eps=1e-12,
    ),
    "ViT or ViT-MAE of transformers": Layout(
        family="vit", patches=_TRANSFORMERS_PATCHES, marks=(r"layernorm_before\.weight$",),
        renames=_TRANSFORMERS, others=_CLASSIFIER, finish=(join_queries_keys_values,), eps=1e-12,
    ),
    "DINOv2": Layout(
        family="vit", marks=(r"mask_token$", r"\.ls1\.gamma$"), renames=_DINOV2, finish=(fold_class_position,),
    ),
    "SimMIM, ViT": Layout(
        family="beit", marks=(r"^encoder\.mask_token$", r"^decoder\.0\.", r"encoder\.blocks\.0\.attn\.q_bias$"),
    ),
    "SimMIM, Swin": Layout(
        family="swin", marks=(r"^encoder\.mask_token$", r"^decoder\.0\.", _SWIN_BLOCK), finish=(shift_downsampling,), eps=1e-5,
    ),
    "BEiT": Layout(family="beit", marks=(r"blocks\.0\.attn\.q_bias$",), normalisation=HALF),
    "Swin": Layout(family="swin", marks=(_SWIN_BLOCK,), finish=(shift_downsampling,), eps=1e-5),
    "DeiT III": Layout(
        family="vit", marks=(r"blocks\.0\.gamma_1$", _VIT_BLOCK), renames=((r"\.gamma_([12])$", r".ls\1.gamma"),)
    ),
    "DeiT, distilled": Layout(family="vit", marks=(r"(^|\.)dist_token$", _VIT_BLOCK)),
    "MAE of facebookresearch": Layout(family="vit", marks=(r"decoder_pred\.weight$", _VIT_BLOCK)),
    "MAE of evomask": Layout(family="vit", marks=(r"^decoder_head\.weight$", _VIT_BLOCK)),
    "DINO": Layout(family="vit", marks=(r"head\.last_layer\.", _VIT_BLOCK)),
    "CLIP of timm": Layout(family="vit", marks=(r"norm_pre\.weight$", _VIT_BLOCK), eps=1e-5, normalisation=CLIP),
    "ViT of timm, DeiT, DINO or MAE": Layout(family="vit", marks=(_VIT_BLOCK,)),
}  # fmt: skip
"""Name -> layout; the first whose keys are found is taken, so the more particular ones come first."""
