"""How long the next process may take samples: time shared out, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bnfold.measurement.stats import FEWEST_PROCESSES

_PLANNED: Final = 10
_FIRST_S: Final = 0.6
_SHORTEST_S: Final = 0.3
_LONGEST_S: Final = 6.0


@dataclass(frozen=True, slots=True)
class Spent:
    """What one process took: all of it, and of that the part in which it took samples."""

    whole_s: float
    sampling_s: float


def next_sampling_s(left_s: float, spent: Sequence[Spent], cases: int = 1) -> float:
    """How long the next process is to take samples.

    The first one is short and shows what a process costs beside its samples. The rest of the
    time is shared by as many processes as make half of it samples, six at least and ten at
    most.

    Args:
        left_s: What is left of the time.
        spent: What the processes so far took.
        cases: How many cases the process samples, one after the other.
    """
    shortest_s, longest_s = cases * _SHORTEST_S, cases * _LONGEST_S
    if not spent:
        return min(cases * _FIRST_S, max(left_s / _PLANNED, shortest_s))
    beside_s = _beside(spent)
    affordable = int(left_s / max(2 * beside_s, 1e-9))
    wanted = min(max(affordable, FEWEST_PROCESSES - len(spent), 1), _PLANNED)
    return min(max(left_s / wanted - beside_s, shortest_s), longest_s)


def is_time_over(
    left_s: float, spent: Sequence[Spent], cases: int = 1, *, insist: bool
) -> bool:
    """Whether another process would last beyond the end.

    Args:
        left_s: What is left of the time.
        spent: What the processes so far took.
        cases: How many cases the process would sample.
        insist: Go on until an interval is possible, whatever the time.
    """
    if insist and len(spent) < FEWEST_PROCESSES:
        return False
    return left_s < (_beside(spent) + cases * _SHORTEST_S if spent else 0.0)


def _beside(spent: Sequence[Spent]) -> float:
    """What a process costs beside its samples: start, sessions, warm-up."""
    return max(sum(one.whole_s - one.sampling_s for one in spent) / len(spent), 0.0)
