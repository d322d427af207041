"""Masks as COCO stores them, polygons and run lengths, by pycocotools."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def pycocotools_mask() -> Any:
    """The module `pycocotools.mask`.

    Raises:
        ValueError: it is not installed.
    """
    try:
        from pycocotools import mask
    except ImportError as error:
        raise ValueError("masks of COCO are read by pycocotools: pip install 'evomask[detection]'") from error
    return mask


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """(K, H, W) bool -> K run lengths, `{"size": [H, W], "counts": text}`, as JSON can hold them."""
    columns_first = np.asfortranarray(masks.cpu().numpy().astype(np.uint8).transpose(1, 2, 0))
    encoded = pycocotools_mask().encode(columns_first)
    return [{"size": list(each["size"]), "counts": each["counts"].decode()} for each in encoded]


def decode_mask(segmentation: Any, size: tuple[int, int]) -> Tensor:
    """(H, W) bool of polygons, `[[x, y, x, y, ...], ...]`, or of run lengths, compressed or as a list of numbers.

    Args:
        segmentation: as an annotation has it; see `usable_segmentation`.
        size: height and width of the image.
    """
    library = pycocotools_mask()
    if isinstance(segmentation, list):
        encoded = library.merge(library.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        encoded = library.frPyObjects(segmentation, *size)
    else:
        encoded = segmentation
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of NumPy's, about how pycocotools makes arrays
        return torch.from_numpy(library.decode(encoded)).bool()


def usable_segmentation(segmentation: Any, size: tuple[int, int]) -> Any:
    """The same without polygons of under three corners, which pycocotools takes for boxes; None where nothing is left.

    Raises:
        ValueError: it is of another kind, or its run lengths are damaged or of another size.
    """
    if segmentation is None or segmentation == []:
        return None
    if isinstance(segmentation, list) and all(_is_numbers(polygon) and len(polygon) % 2 == 0 for polygon in segmentation):
        return [polygon for polygon in segmentation if len(polygon) >= 6] or None
    if isinstance(segmentation, dict) and isinstance(counts := segmentation.get("counts"), (list, str)):
        if segmentation.get("size") != list(size):
            raise ValueError(f"its run lengths are of size {segmentation.get('size')}, and its image is of {list(size)}")
        if isinstance(counts, list) and not (_is_numbers(counts) and sum(counts) == size[0] * size[1]):
            raise ValueError("its run lengths do not add up to the pixels of its image")
        if isinstance(counts, str):
            library = pycocotools_mask()
            try:
                library.decode(segmentation)
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"its run lengths are damaged: {error}") from error
        return segmentation
    raise ValueError("its segmentation is neither polygons nor run lengths")


def _is_numbers(values: Sequence[Any]) -> bool:
    return isinstance(values, list) and all(isinstance(value, (int, float)) and math.isfinite(value) for value in values)
