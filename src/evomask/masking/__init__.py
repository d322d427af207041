"""Masks for masked image modelling: evolved hierarchical masking (Feng and Zhang, TPAMI) and the masks it is compared with.

Imports torch alone, so that it can be lifted out whole. To read it in the order of the paper: affinity.py, hierarchy.py,
evolved.py; then static.py.
"""

from evomask.masking.evolved import EvolvedMasking, masking_depth
from evomask.masking.hierarchy import Hierarchy, NonFiniteAffinity, build_hierarchy
from evomask.masking.mask import Mask, MaskingStrategy
from evomask.masking.static import BlockMasking, CellMasking, GridMasking, RandomMasking

STRATEGIES: dict[str, type] = {
    "evolved": EvolvedMasking,
    "random": RandomMasking,
    "grid": GridMasking,
    "block": BlockMasking,
    "cells": CellMasking,
}
"""Every strategy by the name it has in a configuration. A further strategy is one file and a line here."""

__all__ = [
    "STRATEGIES",
    "BlockMasking",
    "CellMasking",
    "EvolvedMasking",
    "GridMasking",
    "Hierarchy",
    "Mask",
    "MaskingStrategy",
    "NonFiniteAffinity",
    "RandomMasking",
    "build_hierarchy",
    "masking_depth",
]
