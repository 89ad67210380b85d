"""Fold affine maps: find them, plan where they go, carry the plan out."""

from bnfold.folding.api import FoldResult, fold_unchecked

__all__ = ["FoldResult", "fold_unchecked"]
