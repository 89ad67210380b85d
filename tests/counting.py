"""Work counted in calls of functions, of C too: the same on every machine and on each run."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Callable


def calls(work: Callable[[], object]) -> int:
    """Return how many functions are called to do something."""
    profile = cProfile.Profile()
    profile.enable()
    work()
    profile.disable()
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]  # its stub leaves it out


def growth(work_on: Callable[[int], Callable[[], object]], nodes: int) -> float:
    """Return how the calls for one more node grow from ``nodes`` to twice as many.

    What is done once, whatever the size, is in none of the differences. Work that is linear
    gives 1; in a quadratic part of it every further node takes twice as much.

    Args:
        work_on: Prepares a graph of so many nodes, and returns what is counted.
        nodes: The smallest size; four times as many are the largest.
    """
    calls(work_on(16))  # what is imported or built once
    small, middle, large = (calls(work_on(factor * nodes)) for factor in (1, 2, 4))
    return (large - middle) / (2 * (middle - small))
