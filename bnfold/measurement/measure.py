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
from bnfold.runtime import CPU

_MOST_PROCESSES: Final = 60
_PARTS: Final = 10
_FEWEST_TURNS: Final = 4
_STARTS: Final = 3
_STARTS_SHARE: Final = 0.04
_WARM_S: Final = 0.5
_CALLS_ALONE: Final = 3
_UNDECIDED: Final = Ending.OUT_OF_TIME
"""What a case is while it is measured: if nothing else ends it, the time does."""

_PATIENCE_S: Final = 10.0
_BYTES_PER_S: Final = 2e7
_PATIENCE_ON_DEVICES_S: Final = 900.0
"""A process that has not come to its end after so long, beyond its own time, hangs: on a CPU
by the time for all and the size of the models; engines for devices are built for minutes."""


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

    cases: list[Case]
    starts: list[Start] = field(default_factory=list)
    graphs: list[RunGraph] = field(default_factory=list)


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
        details: Whether to look at what runs, and to start each arm alone.
        clock: Seconds, never backwards.
    """

    lab: Lab
    arms: tuple[ArmPlan, ...]
    cases: tuple[CasePlan, ...]
    goal: Goal
    watch: Watch
    tell: Tell
    details: bool = True
    clock: Callable[[], float] = time.monotonic
    begun_s: float = 0.0

    def run(self) -> Measured:
        """Measure every case; what the user interrupts is there as far as it came.

        Raises:
            MissingDependencyError: If the provider is not there.
        """
        self.begun_s = self.clock()
        found = Measured([_unmeasured(case, Ending.INTERRUPTED, {}) for case in self.cases])
        self.watch.read()
        try:
            for index, case in enumerate(self.cases):
                failures = self._start_alone(case, index, found) if self.details else {}
                found.cases[index] = _unmeasured(case, Ending.INTERRUPTED, failures)
            if self.details:
                self._look(found)
            self._interleave(found.cases)
        except KeyboardInterrupt:
            found.cases = [_cut_short(case) for case in found.cases]
        return found

    def _say(self, doing: str) -> None:
        spent = self.clock() - self.begun_s
        self.tell(Stage(doing, min(spent / max(self.goal.max_time_s, 1e-9), 1.0)))

    def _start_alone(self, case: CasePlan, index: int, found: Measured) -> dict[str, str]:
        """Each arm alone in fresh processes, in random order; several times if short.

        Returns:
            Why arms cannot be run; in one process with the others they might end them too.
        """
        rng = np.random.default_rng(self.goal.seed)
        arms = [one for one in self.arms if not one.arm.null]
        begun, failures = self.clock(), dict[str, str]()
        for turn in range(_STARTS if index == 0 else 1):
            for chosen in rng.permutation(len(arms)):
                name = arms[chosen].arm.name
                if name in failures:
                    continue
                self._say(f"{_batch(case)}starting {name}")
                told = self._ask(
                    "alone",
                    {name: arms[chosen]},
                    inputs=str(case.inputs),
                    calls=_CALLS_ALONE,
                )
                _stop_if_interrupted(told)
                found.starts.extend(_starts(told, case))
                failures |= _failure(told, name)
                if BASE in failures:
                    return failures  # nothing could be compared with it
            once = (self.clock() - begun) / (turn + 1)
            if once > _STARTS_SHARE * self.goal.max_time_s:
                break
        return failures

    def _look(self, found: Measured) -> None:
        """What runs of every arm, at the first batch size."""
        for one in self.arms:
            if one.arm.null or one.arm.name in found.cases[0].failures:
                continue
            self._say(f"looking at what runs of {one.arm.name}")
            graph = look(self.lab, one, self.cases[0], self._patience_s({"": one}))
            if graph is None:
                raise KeyboardInterrupt
            found.graphs.append(graph)

    def _interleave(self, states: list[Case]) -> None:
        """Processes in which all arms take turns, until every case is precise or time is over.

        Args:
            states: Every case as far as it is known; replaced as it becomes known.
        """
        until = self.begun_s + self.goal.max_time_s
        spent: list[Spent] = []
        going = []
        for index, state in enumerate(states):
            runs = BASE not in state.failures
            states[index] = replace(
                state, ending=Ending.OUT_OF_TIME if runs else Ending.FAILED
            )
            going += [index] if runs else []
        while going and len(spent) < _MOST_PROCESSES:
            told = self._take_samples(going, states, until, spent)
            for index in going:
                states[index] = self._with(states[index], told, index, len(spent) - 1)
                ended = self._ending(states[index], told, index) or _UNDECIDED
                states[index] = replace(states[index], ending=ended)
            _stop_if_interrupted(told)
            going = [index for index in going if states[index].ending is _UNDECIDED]
            left_s = until - self.clock()
            if is_time_over(left_s, spent, len(going), insist=self.goal.insist):
                break

    def _take_samples(
        self, going: Sequence[int], states: Sequence[Case], until: float, spent: list[Spent]
    ) -> Told:
        """One process more; what it took is added to ``spent``."""
        begun = self.clock()
        sampling_s = next_sampling_s(until - begun, spent, len(going))
        self._say(_so_far(states[going[0]], self.goal.arm))
        names = [one.arm.name for one in self.arms]
        cases = [
            {
                "index": index,
                "inputs": str(self.cases[index].inputs),
                "arms": [name for name in names if name not in states[index].failures],
            }
            for index in going
        ]
        told = self._ask(
            "interleave",
            {one.arm.name: one for one in self.arms},
            cases=cases,
            seed=self.goal.seed + len(spent),
            base=BASE,
            warm_s=max(sampling_s / len(going), _WARM_S),
            budget_s=sampling_s / len(going),
            fewest_turns=_FEWEST_TURNS,
        )
        self.watch.read()
        spent.append(Spent(self.clock() - begun, sampling_s))
        return told

    def _with(self, state: Case, told: Told, index: int, process: int) -> Case:
        """The case with what one more process told of it."""
        told = told.about(index)
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

    def _ending(self, state: Case, told: Told, index: int) -> Ending | None:
        """Why no further process is started for a case; None when one is."""
        if told.interrupted:
            return Ending.INTERRUPTED
        if not any("turn" in line for line in told.about(index).lines):
            return Ending.FAILED
        return Ending.PRECISE if self._is_precise(state) else None

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

    def _ask(self, task: str, arms: Mapping[str, ArmPlan], **asked: Any) -> Told:
        plans = {name: one.plan for name, one in arms.items()}
        return self.lab.ask(task, plans, self._patience_s(arms), **asked)

    def _patience_s(self, arms: Mapping[str, ArmPlan]) -> float:
        if any(one.plan.provider != CPU for one in arms.values()):
            return _PATIENCE_ON_DEVICES_S + self.goal.max_time_s
        opening_s = sum(one.arm.size_bytes for one in arms.values()) / _BYTES_PER_S
        return max(_PATIENCE_S, self.goal.max_time_s) * len(arms) + opening_s


def _stop_if_interrupted(told: Told) -> None:
    """Go on as if the user's Ctrl-C had come just now."""
    if told.interrupted:
        raise KeyboardInterrupt


def _unmeasured(case: CasePlan, ending: Ending, failures: Mapping[str, str]) -> Case:
    """A case of which nothing was timed."""
    return Case(case.batch, case.shapes, (), (), (), ending, {}, failures)


def _cut_short(case: Case) -> Case:
    """The case as the user left it."""
    return replace(case, ending=Ending.INTERRUPTED) if case.ending is _UNDECIDED else case


def _failure(told: Told, name: str) -> dict[str, str]:
    """Why an arm that was alone in its process could not be run; nothing if it could."""
    found = told.failures()
    return found if told.complete or found else {name: told.end.message}


def _half_width(one: Comparison) -> float:
    if not one.low > 0:
        return math.inf
    return math.sqrt(one.high / one.low) - 1


def _batch(case: CasePlan) -> str:
    return "" if case.batch is None else f"batch {case.batch}: "


def _so_far(state: Case, arm: str) -> str:
    """What the figures say up to now."""
    where = "" if state.batch is None else f"batch {state.batch}: "
    found = [one for one in state.comparisons if one.arm == arm]
    if not found or found[0].verdict is Speed.NOT_MEASURED:
        done = len({one.process for one in state.series})
        return f"{where}measuring, process {done + 1}"
    one = found[0]
    return f"{where}{arm} takes {one.ratio:.3f} of the time ({one.low:.3f} to {one.high:.3f})"


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
