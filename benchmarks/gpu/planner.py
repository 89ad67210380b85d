"""Which measurement comes when, and how long it may take: pure functions."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

NEEDED_PROCESSES: Final = 6
"""With fewer, `bnfold.benchmark` gives no interval."""
_SAMPLES_S: Final = 0.6
"""What each process is to take samples of one batch size for."""
_MARGIN: Final = 1.1
_LATEST: Final = 5
_FAR_TOO_SHORT: Final = 0.7

ALL_ARMS: Final = ("original", "folded", "unfused")
FEW_ARMS: Final = ("original", "folded")


@dataclass(frozen=True, slots=True)
class Pass:
    """One way of measuring, for all networks in turn.

    Attributes:
        batches: The batch sizes, measured in the same processes.
        dtype: ``"model"`` for the file as it is, in float32, or ``"float16"``.
        cuda_graph: Whether a captured CUDA graph is replayed.
        arms: The arms beside the null run.
        details: Whether to look at what runs, where that is not known of a network yet.
    """

    batches: tuple[int, ...]
    dtype: str = "model"
    cuda_graph: bool = False
    arms: tuple[str, ...] = FEW_ARMS
    details: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """One measurement: a network in one way, at several batch sizes."""

    net: str
    how: Pass

    @property
    def key(self) -> str:
        """A name by which it can be told from others."""
        return _key(self, ",".join(map(str, self.how.batches)))

    @property
    def case_keys(self) -> tuple[str, ...]:
        """The names of its cases, by which results of several runs can be told apart."""
        return tuple(_key(self, str(batch)) for batch in self.how.batches)

    def at(self, batches: Sequence[int]) -> Task:
        """The same at other batch sizes."""
        return replace(self, how=replace(self.how, batches=tuple(batches)))

    def shares_pass(self, other: Task) -> bool:
        """Whether another is measured in the same way, batch sizes aside."""
        mine = (self.how.dtype, self.how.cuda_graph)
        return mine == (other.how.dtype, other.how.cuda_graph)


def _key(task: Task, batches: str) -> str:
    graph = " graph" if task.how.cuda_graph else ""
    return f"{task.net} batch {batches} {task.how.dtype}{graph}"


@dataclass(frozen=True, slots=True)
class Past:
    """What a measurement took.

    Attributes:
        task: What was measured.
        details: Whether processes for starts and looks were part of it.
        processes: How many processes measured.
        elapsed_s: All of it.
        timed_s: Of that the timed calls.
    """

    task: Task
    details: bool
    processes: int
    elapsed_s: float
    timed_s: float


PASSES: Final = (
    Pass((1, 32), details=True),
    Pass((1, 32), "float16"),
    Pass((1, 8, 32), cuda_graph=True),
    Pass((1, 8, 32), "float16", cuda_graph=True),
    Pass((8,), arms=ALL_ARMS, details=True),
    Pass((8,), "float16", details=True),
)
"""The most telling first: what time is too short for is what would have told least.

A batch size more in the same processes costs a third of a task of its own, so only the first
two passes, which are to reach every network early, leave batch 8 for the end. Details cost
half a task; float16 changes kernels, and hardly what is left to run. A CUDA graph replays the
same nodes, and the runtime's profiler does not see them.
"""
DRY_PASSES: Final = (
    Pass((1, 4), arms=ALL_ARMS, details=True),
    Pass((1, 4), "float16"),
)


def plan(
    nets: Sequence[str], passes: Sequence[Pass], done: frozenset[str] = frozenset()
) -> list[Task]:
    """List the measurements, all networks of a pass before the next pass.

    Args:
        nets: The networks.
        passes: The ways of measuring.
        done: Keys of cases that are measured already; a task is left with the others.
    """
    tasks = []
    for task in (Task(net, how) for how in passes for net in nets):
        cases = zip(task.how.batches, task.case_keys, strict=True)
        lacking = [batch for batch, key in cases if key not in done]
        if lacking:
            tasks.append(task.at(lacking))
    return tasks


def needed_s(task: Task, past: Sequence[Past], first_s: float, *, details: bool) -> float:
    """Return how long a measurement must take to end with intervals.

    Args:
        task: The measurement.
        past: What measurements took so far, in order.
        first_s: What to take where nothing is known.
        details: Whether it looks at what runs, too.
    """
    known = [one for one in past if one.processes > 0]
    own = [one for one in known if one.task.net == task.net]
    latest = (own or known)[-_LATEST:]
    if not latest:
        return first_s
    unit_s = statistics.median(
        (one.elapsed_s - one.timed_s) / _work(one.task.how, one.processes, details=one.details)
        for one in latest
    )
    samples_s = NEEDED_PROCESSES * len(task.how.batches) * _SAMPLES_S
    return _MARGIN * unit_s * _work(task.how, NEEDED_PROCESSES, details=details) + samples_s


def _work(how: Pass, processes: int, *, details: bool) -> float:
    """What is done beside samples; the unit is a process that opens one session.

    One that measures costs half a unit more for each batch size. Details are a process for
    each arm at each batch size, and one that looks at what runs of it.
    """
    measuring = processes * (1 + len(how.batches) / 2)
    return measuring + details * len(how.arms) * (len(how.batches) + 1)


def affords_details(
    task: Task, queue: Sequence[Task], left_s: float, past: Sequence[Past]
) -> bool:
    """Whether looking at what runs does not cost another network its turn in this pass.

    Where time is far too short for the whole pass it is done, too: what is measured is then
    measured whole, and the rest is for another run.

    Args:
        task: The measurement.
        queue: What comes after it.
        left_s: What is left of the time.
        past: What measurements took so far; without any, it is tried.
    """
    whole = [task, *itertools.takewhile(task.shares_pass, queue)]
    plain_s = sum(needed_s(one, past, 0.0, details=False) for one in whole)
    more_s = needed_s(task, past, 0.0, details=True) - needed_s(task, past, 0.0, details=False)
    return left_s >= plain_s + more_s or left_s < _FAR_TOO_SHORT * plain_s


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
    others = (i for i, one in enumerate(queue) if not one.shares_pass(task))
    at = next(others, len(queue))
    return [*queue[:at], task, *queue[at:]]
