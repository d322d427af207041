"""The rows of GVTBench (Wang et al., 2023): counting and identification on COCO and on VCR.

A file is a list of `{image_id, text_in, text_out, n_obj_exist}`: https://github.com/TencentARC/GVT (Apache-2.0). Two things to
know of the published files: `vcr_mci.json` gives its answers away, as all rows with Yes ask what "exist" and all with No what
"exis"; and there are two files named coco_oc.json, of other rows, in which 54% and 86% of the answers are "1".
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evomask.data.image_files import files_of
from evomask.data.images import DecodedImages
from evomask.data.json_rows import read_json, rows_of
from evomask.data.questions import Questions

_WHAT = "a json file of GVTBench, a list of image_id, text_in and text_out"


def is_gvtbench(record: Any) -> bool:
    """Whether a json file is a list of rows, as GVTBench's are, and COCO's are not."""
    return isinstance(record, list)


def read_gvtbench(file: Path, images: Path, channels: int = 3, as_published: bool = False) -> Questions:
    """The questions of a file, in its order.

    Args:
        file: coco_oc.json, coco_mci.json, vcr_oc.json, vcr_mci.json.
        images: COCO's val2017, or VCR's vcr1images.
        channels: of an image.
        as_published: leave the questions as they are; else "exis" is mended to "exist", and gives nothing away.

    Raises:
        ValueError: it is no such file, or an image is missing.
    """

    def read(row: Mapping[str, Any]) -> tuple[int | str, str, str]:
        id_, text, answer = row["image_id"], str(row["text_in"]), str(row["text_out"]).strip().rstrip(".").lower()
        if not answer:
            raise ValueError("has no answer in text_out")
        return id_ if isinstance(id_, int) else str(id_), text if as_published else re.sub(r"\bexis\b", "exist", text), answer

    rows = rows_of(file, _WHAT, read_json(file, _WHAT), read)
    ids = list(dict.fromkeys(image for image, _, _ in rows))
    number_of = {id_: number for number, id_ in enumerate(ids)}
    return Questions(
        images=DecodedImages(files_of(ids, images, file), channels),
        image_of=np.array([number_of[image] for image, _, _ in rows]),
        texts=[text for _, text, _ in rows],
        answers=[(answer,) for _, _, answer in rows],
        kinds=[""] * len(rows),
    )
