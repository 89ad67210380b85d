"""Take samples in turns: the order of calls, and nothing about what is called.

The clock is handed in, so all of this is tested without waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from bnfold.measurement.stats import settled

Call = Callable[[], object]
Clock = Callable[[], int]
"""Nanoseconds from any beginning, never backwards: ``time.perf_counter_ns``."""

_WINDOW: Final = 5
_WINDOW_NS: Final = 20_000_000
_MOST_IN_WINDOW: Final = 500
_TOLERANCE: Final = 0.03
_BLOCK_NS: Final = 6_000_000
_MOST_IN_TURN: Final = 32
_LONG_NS: Final = 20_000_000


@dataclass(frozen=True, slots=True)
class Warmth:
    """How an arm warmed up.

    Attributes:
        calls: How many calls it took.
        settled: Whether the running median had settled before the time was over.
        typical_ns: The median of the last calls.
    """

    calls: int
    settled: bool
    typical_ns: int


def warm_up(call: Call, clock: Clock, most_ns: int) -> Warmth:
    """Call until the running median settles, or for so many nanoseconds.

    A window is five calls, or as many of the shortest as fill 20 ms: one slow call must not
    make it small. The median of one must be within 3 % of the one before.
    """
    begun = clock()
    times = [time_one(call, clock)]
    least, window, judged, calm = times[0], _WINDOW, 0, False
    while not calm and clock() - begun < most_ns:
        times.append(time_one(call, clock))
        least = min(least, times[-1])
        window = min(max(_WINDOW, _WINDOW_NS // max(least, 1)), _MOST_IN_WINDOW)
        if len(times) >= judged + window:
            judged = len(times)
            calm = settled(times, window, _TOLERANCE)
    typical = int(np.median(times[-window:]))
    return Warmth(len(times), calm, max(typical, 1))


def calls_per_turn(typical_ns: int) -> int:
    """How many calls make a turn long enough, and not too long."""
    return int(min(max(_BLOCK_NS // typical_ns, 1), _MOST_IN_TURN))


@dataclass(frozen=True, slots=True)
class Taken:
    """What one arm did in one turn: which place it had, and the time of every call."""

    place: int
    calls_ns: tuple[int, ...]


def take_turn(
    arms: Mapping[str, Call],
    typical_ns: Mapping[str, int],
    rng: np.random.Generator,
    clock: Clock,
) -> dict[str, Taken]:
    """Time every arm, one after the other, in random order.

    The first call of a short arm is not counted: it finds the caches full of another arm.
    """
    names = list(arms)
    taken = {}
    for place, index in enumerate(rng.permutation(len(names))):
        name = names[index]
        call = arms[name]
        if typical_ns[name] < _LONG_NS:
            call()
        count = calls_per_turn(typical_ns[name])
        taken[name] = Taken(place, tuple(time_one(call, clock) for _ in range(count)))
    return taken


def time_one(call: Call, clock: Clock) -> int:
    """Nanoseconds that one call takes."""
    start = clock()
    call()
    return clock() - start
