"""Make a faulty graph small: fewer decisions, and simpler ones, as long as it is faulty."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

_BLOCKS: Final = (64, 32, 16, 8, 4, 2, 1)


def shrunk(
    made: list[int], is_faulty: Callable[[list[int]], bool], seconds: float = 60.0
) -> list[int]:
    """Return fewer and simpler decisions that still lead to a faulty graph."""
    until = time.monotonic() + seconds
    improved = True
    while improved:
        improved = False
        for other in _simpler(made):
            if time.monotonic() > until:
                return made
            if is_faulty(other):
                made, improved = other, True
                break
    return made


def _simpler(made: list[int]) -> Iterator[list[int]]:
    """Yield the decisions without some of them, with simplest ones, with a lower one."""
    for size in _BLOCKS:
        for start in range(max(len(made) - size, 0), -1, -size):
            yield made[:start] + made[start + size :]
    for size in _BLOCKS:
        for start in range(0, len(made), size):
            block = made[start : start + size]
            if any(block):
                yield made[:start] + [0] * len(block) + made[start + size :]
    for place, number in enumerate(made):
        if number > 1:
            yield [*made[:place], number // 2, *made[place + 1 :]]
            yield [*made[:place], number - 1, *made[place + 1 :]]
