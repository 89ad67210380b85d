"""Evidence that a folded model is the same function; knows nothing of folding."""

from bnfold.evidence.check import check_fold

__all__ = ["check_fold"]
