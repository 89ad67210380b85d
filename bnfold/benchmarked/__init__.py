"""Measure what a fold buys on this machine: what `bnfold.benchmark` does."""

from bnfold.benchmarked.call import benchmark

__all__ = ["benchmark"]
