"""Sums of linear maps of one value, and linear maps in a row, become one."""

from bnfold.folding.merging.merge import merge_constants, merge_linear

__all__ = ["merge_constants", "merge_linear"]
