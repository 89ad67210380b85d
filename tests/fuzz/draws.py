"""Decisions that lead to a graph: drawn by a number, replayed, or drawn by hypothesis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

T = TypeVar("T")
Source = Callable[[int, int], int]
"""Gives a whole number between two, both included."""
_integers = lru_cache(maxsize=None)(st.integers)


class Draws:
    """Makes decisions of whole numbers. What is simplest stands first: that is left of them.

    Attributes:
        made: The numbers so far, each as it was above the lowest that it could be.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.made: list[int] = []

    def integer(self, low: int, high: int) -> int:
        """Return a whole number between two, both included."""
        number = self._source(low, high)
        self.made.append(number - low)
        return number

    def pick(self, options: Sequence[T]) -> T:
        """Return one of the options; repeated ones are likelier."""
        return options[self.integer(0, len(options) - 1)]

    def chance(self, percent: int) -> bool:
        """Return True so often, False when shrunk."""
        return self.integer(0, 99) >= 100 - percent

    def some(self, options: Sequence[T]) -> list[T]:
        """Return each of the options or not, in their order."""
        return [one for one in options if self.chance(50)]

    def order(self, options: Sequence[T]) -> list[T]:
        """Return the options in some order."""
        left = list(options)
        return [left.pop(self.integer(0, len(left) - 1)) for _ in options]

    def rng(self) -> np.random.Generator:
        """Return random numbers, for what is not worth shrinking one by one."""
        return np.random.default_rng(self.integer(0, 2**16))


def by_number(number: int, seed: int) -> Draws:
    """Return the decisions that belong to a number."""
    rng = np.random.default_rng((seed, number, 53))
    return Draws(lambda low, high: int(rng.integers(low, high + 1)))


def replayed(made: Sequence[int]) -> Draws:
    """Return decisions that were made before, the simplest once these are used up."""
    left = iter(made)
    return Draws(lambda low, high: min(low + next(left, 0), high))


def by_hypothesis(draw: Any) -> Draws:
    """Return decisions of a hypothesis strategy."""
    return Draws(lambda low, high: int(draw(_integers(low, high))))
