"""The deadline of whatever is evaluated: looked at in front of every operator.

A segment, a loop or a function can be a single step of a proof and run for ever. So the
deadline is ambient, and evaluation stops where it is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_DEADLINE: Final[ContextVar[float]] = ContextVar("bnfold.deadline", default=math.inf)
_CERTAIN: Final = 8.0
"""So many times what is left, an estimate has to be before nothing is begun."""


NO_MEMORY: Final = "it needs more memory than it may have (--max-memory allows more)"
"""Said of what could not be evaluated for want of it."""


class OutOfTimeError(Exception):
    """The time is up."""


@contextmanager
def until(deadline: float) -> Iterator[float]:
    """Let nothing be evaluated behind a deadline, for a block.

    Args:
        deadline: By the monotonic clock; an earlier one that holds already stays.

    Yields:
        The deadline that holds.
    """
    nearest = min(deadline, _DEADLINE.get())
    token = _DEADLINE.set(nearest)
    try:
        yield nearest
    finally:
        _DEADLINE.reset(token)


def check(ns: float = 0.0) -> None:
    """Stop if the time is up, or what comes next would take far longer than there is.

    Args:
        ns: What comes next is estimated to take, in nanoseconds.

    Raises:
        OutOfTimeError: If so.
    """
    deadline = _DEADLINE.get()
    if math.isinf(deadline):
        return
    left_s = deadline - time.monotonic()
    if left_s < 0 or ns * 1e-9 > _CERTAIN * left_s:
        raise OutOfTimeError
