"""Measure all arms: processes one after the other until the answer is precise enough."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from bnfold.measurement.arms import BASE, NULL
from bnfold.measurement.budget import Spent, is_time_over, next_sampling_s
from bnfold.measurement.lab import ArmPlan, CasePlan, Lab, Told
from bnfold.measurement.machine import Watch
from bnfold.measurement.ran import look
from bnfold.measurement.stats import FEWEST_PROCESSES, compare, latency_of
from bnfold.records import (
    Case,
    Comparison,
    Ending,
    RunGraph,
    Series,
    Speed,
    Start,
    Turn,
)

_MOST_PROCESSES: Final = 60
_PARTS: Final = 10
_FEWEST_TURNS: Final = 4
_STARTS: Final = 3
_STARTS_SHARE: Final = 0.04
_WARM_S: Final = 0.5
_CALLS_ALONE: Final = 3
_PATIENCE_S: Final = 900.0
"""A process that has not come to its end after so long, beyond its own time, hangs."""


@dataclass(frozen=True, slots=True)
class Goal:
    """When measuring ends.

    Attributes:
        precision: Half the width of the interval, as a fraction; of a large difference a
            tenth of it is enough.
        max_time_s: For all cases together.
        confidence: Of the interval.
        seed: Of turns and resampling.
        insist: Whether to go on until an interval is possible, whatever the time.
        arm: The arm whose interval must be so narrow.
    """

    precision: float
    max_time_s: float
    confidence: float
    seed: int
    insist: bool = False
    arm: str = "folded"


@dataclass(frozen=True, slots=True)
class Stage:
    """How far measuring has come, for a progress bar.

    Attributes:
        doing: What is being done, in words.
        done: Share of the time that is over, from 0 to 1.
    """

    doing: str
    done: float


Tell = Callable[[Stage], None]


@dataclass(slots=True)
class Measured:
    """What was measured up to now."""

    cases: list[Case] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)
    graphs: list[RunGraph] = field(default_factory=list)
    interrupted: bool = False


@dataclass(slots=True)
class Campaign:
    """All that belongs to one benchmark while it is under way.

    Attributes:
        lab: Where processes are started.
        arms: The arms, the base first, then its null run.
        cases: What is run.
        goal: When it ends.
        watch: Reads the machine.
        tell: Told how far it has come.
        clock: Seconds, never backwards.
    """

    lab: Lab
    arms: tuple[ArmPlan, ...]
    cases: tuple[CasePlan, ...]
    goal: Goal
    watch: Watch
    tell: Tell
    clock: Callable[[], float] = time.monotonic
    begun_s: float = 0.0

    def run(self) -> Measured:
        """Measure every case; what the user interrupts is there as far as it came.

        Raises:
            MissingDependencyError: If the provider is not there.
        """
        self.begun_s = self.clock()
        found = Measured()
        self.watch.read()
        for index, case in enumerate(self.cases):
            try:
                self._measure(case, index, found)
            except KeyboardInterrupt:
                found.interrupted = True
            if found.interrupted:
                break
        return found

    def _measure(self, case: CasePlan, index: int, found: Measured) -> None:
        until = self._until(index)
        self._start_alone(case, found)
        if index == 0 and not found.interrupted:
            self._look(case, found)
        if not found.interrupted:
            found.cases.append(self._interleave(case, until, found))

    def _until(self, index: int) -> float:
        """When a case must be over, so that each of those to come has as much time."""
        now = self.clock()
        left = self.goal.max_time_s - (now - self.begun_s)
        return now + max(left, 0.0) / (len(self.cases) - index)

    def _say(self, doing: str) -> None:
        spent = self.clock() - self.begun_s
        self.tell(Stage(doing, min(spent / max(self.goal.max_time_s, 1e-9), 1.0)))

    def _start_alone(self, case: CasePlan, found: Measured) -> None:
        """Each arm alone in fresh processes, in random order; several times if short."""
        rng = np.random.default_rng(self.goal.seed)
        arms = [one for one in self.arms if not one.arm.null]
        begun = self.clock()
        for turn in range(_STARTS):
            for index in rng.permutation(len(arms)):
                one = arms[index]
                self._say(f"{_batch(case)}starting {one.arm.name}")
                told = self._ask("alone", {one.arm.name: one}, case, calls=_CALLS_ALONE)
                found.starts.extend(_starts(told, case))
                if told.interrupted:
                    found.interrupted = True
                    return
            once = (self.clock() - begun) / (turn + 1)
            if once > _STARTS_SHARE * self.goal.max_time_s:
                return

    def _look(self, case: CasePlan, found: Measured) -> None:
        for one in self.arms:
            if one.arm.null:
                continue
            self._say(f"looking at what runs of {one.arm.name}")
            graph = look(self.lab, one, case, _PATIENCE_S)
            if graph is None:
                found.interrupted = True
                return
            found.graphs.append(graph)

    def _interleave(self, case: CasePlan, until: float, found: Measured) -> Case:
        """Processes in which all arms take turns, until precise or out of time."""
        state = Case(case.batch, case.shapes, (), (), (), Ending.OUT_OF_TIME, {}, {})
        spent: list[Spent] = []
        ending = None
        while ending is None and len(spent) < _MOST_PROCESSES:
            try:
                told = self._take_samples(case, state, until, spent)
                state = self._with(state, told, len(spent) - 1)
                ending = self._ending(state, told, until, spent)
            except KeyboardInterrupt:
                ending = Ending.INTERRUPTED
        found.interrupted = ending is Ending.INTERRUPTED
        return replace(state, ending=ending or Ending.OUT_OF_TIME)

    def _take_samples(
        self, case: CasePlan, state: Case, until: float, spent: list[Spent]
    ) -> Told:
        """One process more; what it took is added to ``spent``."""
        begun = self.clock()
        sampling_s = next_sampling_s(until - begun, spent)
        self._say(f"{_batch(case)}{_so_far(state, self.goal.arm)}")
        told = self._ask(
            "interleave",
            {one.arm.name: one for one in self.arms},
            case,
            seed=self.goal.seed + len(spent),
            base=BASE,
            warm_s=max(sampling_s, _WARM_S),
            budget_s=sampling_s,
            fewest_turns=_FEWEST_TURNS,
        )
        self.watch.read()
        spent.append(Spent(self.clock() - begun, sampling_s))
        return told

    def _with(self, state: Case, told: Told, process: int) -> Case:
        """The case with what one more process told."""
        series = (*state.series, *_series(told, process))
        goal = self.goal
        failures = {**state.failures, **told.failures()}
        if not told.complete and not told.interrupted:
            failures[f"process {process}"] = told.end.message
        differ: dict[str, float] = dict(state.outputs_differ)
        for line in told.lines:
            for name, far in line.get("differ", {}).items():
                differ[name] = max(far, differ.get(name, 0.0))
        timed = dict.fromkeys(one.arm for one in series)
        return replace(
            state,
            series=series,
            latencies=tuple(latency_of(arm, series, state.batch) for arm in timed),
            comparisons=compare(series, BASE, NULL, goal.confidence, goal.seed),
            failures=failures,
            outputs_differ=differ,
        )

    def _ending(
        self, state: Case, told: Told, until: float, spent: Sequence[Spent]
    ) -> Ending | None:
        """Why no further process is started; None when one is."""
        if told.interrupted:
            return Ending.INTERRUPTED
        if not any("turn" in line for line in told.lines):
            return Ending.FAILED
        if self._is_precise(state):
            return Ending.PRECISE
        if is_time_over(until - self.clock(), spent, insist=self.goal.insist):
            return Ending.OUT_OF_TIME
        return None

    def _is_precise(self, state: Case) -> bool:
        """Whether the intervals of the arm that matters and of the null run are narrow."""
        wanted = {self.goal.arm, NULL}
        found = [one for one in state.comparisons if one.arm in wanted]
        return bool(found) and all(
            one.processes >= FEWEST_PROCESSES and _half_width(one) <= self._enough(one)
            for one in found
        )

    def _enough(self, one: Comparison) -> float:
        """The half width that is narrow enough: of large differences, a tenth of them."""
        return max(self.goal.precision, abs(math.log(one.ratio)) / _PARTS)

    def _ask(
        self, task: str, arms: Mapping[str, ArmPlan], case: CasePlan, **asked: Any
    ) -> Told:
        plans = {name: one.plan for name, one in arms.items()}
        return self.lab.ask(task, plans, case.inputs, _PATIENCE_S, **asked)


def _half_width(one: Comparison) -> float:
    if not one.low > 0:
        return math.inf
    return math.sqrt(one.high / one.low) - 1


def _batch(case: CasePlan) -> str:
    return "" if case.batch is None else f"batch {case.batch}: "


def _so_far(state: Case, arm: str) -> str:
    """What the figures say up to now."""
    found = [one for one in state.comparisons if one.arm == arm]
    if not found or found[0].verdict is Speed.NOT_MEASURED:
        done = len({one.process for one in state.series})
        return f"measuring, process {done + 1}"
    one = found[0]
    return f"{arm} takes {one.ratio:.3f} of the time ({one.low:.3f} to {one.high:.3f})"


def _series(told: Told, process: int) -> list[Series]:
    """What a process measured, by arm."""
    warm = {line["warmed"]: line for line in told.lines if "warmed" in line}
    turns: dict[str, list[Turn]] = {name: [] for name in warm}
    for line in told.lines:
        for name, (place, *calls) in line.get("arms", {}).items():
            turns[name].append(Turn(line["turn"], place, tuple(calls)))
    return [
        Series(name, process, warm[name]["calls"], warm[name]["settled"], tuple(taken))
        for name, taken in turns.items()
        if taken
    ]


def _starts(told: Told, case: CasePlan) -> Sequence[Start]:
    return [
        Start(
            line["alone"],
            case.batch,
            line["session_ns"] / 1e6,
            line["first_run_ns"] / 1e6,
            line["peak_host_bytes"],
            line["added_host_bytes"],
            line["device_bytes"],
        )
        for line in told.lines
        if "alone" in line
    ]
