"""Which measurement comes when, and how long it may take: pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

NEEDED_PROCESSES: Final = 6
"""With fewer, `bnfold.benchmark` gives no interval."""
_BESIDE: Final = 3
"""What starts and looks cost at the beginning of a benchmark, in processes that measure."""
_LATEST: Final = 5

ALL_ARMS: Final = ("original", "folded", "unfused")
FEW_ARMS: Final = ("original", "folded")


@dataclass(frozen=True, slots=True)
class Pass:
    """One way of measuring, for all networks in turn.

    Attributes:
        batch: The batch size.
        dtype: ``"model"`` for the file as it is, in float32, or ``"float16"``.
        cuda_graph: Whether a captured CUDA graph is replayed.
        arms: The arms beside the null run.
    """

    batch: int
    dtype: str = "model"
    cuda_graph: bool = False
    arms: tuple[str, ...] = FEW_ARMS


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement: a network in one way."""

    net: str
    how: Pass

    @property
    def key(self) -> str:
        """A name by which results of several runs can be told apart."""
        graph = " graph" if self.how.cuda_graph else ""
        return f"{self.net} batch {self.how.batch} {self.how.dtype}{graph}"


@dataclass(frozen=True, slots=True)
class Past:
    """What a measurement took: all of it, in how many processes that measured."""

    net: str
    elapsed_s: float
    processes: int


PASSES: Final = (
    Pass(1, arms=ALL_ARMS),
    Pass(32, arms=ALL_ARMS),
    Pass(32, "float16"),
    Pass(1, cuda_graph=True),
    Pass(1, "float16", cuda_graph=True),
    Pass(8),
    Pass(1, "float16"),
    Pass(8, "float16"),
    Pass(32, cuda_graph=True),
    Pass(32, "float16", cuda_graph=True),
    Pass(8, cuda_graph=True),
    Pass(8, "float16", cuda_graph=True),
)
"""The most telling first: what time is too short for is what would have told least."""
DRY_PASSES: Final = (Pass(1, arms=ALL_ARMS), Pass(4, "float16"))


def plan(
    nets: Sequence[str], passes: Sequence[Pass], done: frozenset[str] = frozenset()
) -> list[Task]:
    """List the measurements, all networks of a pass before the next pass.

    Args:
        nets: The networks.
        passes: The ways of measuring.
        done: Keys of what an earlier run has measured already.
    """
    tasks = [Task(net, how) for how in passes for net in nets]
    return [task for task in tasks if task.key not in done]


def needed_s(net: str, past: Sequence[Past], first_s: float) -> float:
    """Return how long a measurement must take to end with an interval.

    Args:
        net: The network.
        past: What measurements took so far, in order.
        first_s: What to take where nothing is known.
    """
    known = [one for one in past if one.processes > 0]
    own = [one for one in known if one.net == net]
    latest = (own or known)[-_LATEST:]
    if not latest:
        return first_s
    return 1.1 * statistics.median(
        one.elapsed_s * (NEEDED_PROCESSES + _BESIDE) / (one.processes + _BESIDE)
        for one in latest
    )


def share_s(left_s: float, tasks_left: int, needed: float, longest_s: float) -> float | None:
    """Return how long the next measurement may take; None where too little is left for it.

    Where time is plenty all that are left share it evenly. Where it is short each takes what
    it needs, and the last ones are not reached: few answers are worth more than many that
    say nothing.

    Args:
        left_s: What is left of the time.
        tasks_left: How many measurements are left, this one included.
        needed: What this one needs.
        longest_s: What none may take more of, unless it needs more.
    """
    if left_s < needed or tasks_left < 1:
        return None
    even = left_s / tasks_left
    return min(left_s, max(needed, min(even, longest_s)))


def section_s(left_s: float, weights: Sequence[float]) -> float:
    """Return what the first of several sections may take of the time that is left."""
    total = sum(weights)
    return left_s * weights[0] / total if total > 0 else left_s


def put_off(queue: Sequence[Task], task: Task) -> list[Task]:
    """Return the queue with a task again, behind what is left of its own pass."""
    at = next((i for i, one in enumerate(queue) if one.how != task.how), len(queue))
    return [*queue[:at], task, *queue[at:]]


def processes_of(document: Mapping[str, Any]) -> int:
    """Return how many processes measured, by a benchmark's document."""
    return sum(len({one["process"] for one in case["series"]}) for case in document["cases"])
