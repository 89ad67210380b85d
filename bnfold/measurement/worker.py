"""The process that measures: ``python -m bnfold.measurement.worker request.json``.

A request is a task (`interleave`, `alone`, `look`), the arms and a set of inputs. What it
finds goes to a journal, line by line, so that a process which is cut short has still told what
it had.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bnfold.measurement.memory import device_used_bytes, peak_host_bytes
from bnfold.measurement.sampler import Call, Warmth, take_turn, time_one, warm_up
from bnfold.measurement.tiny import write_tiny
from bnfold.process import bound_for_good
from bnfold.runtime.arrays import Arrays, read_arrays
from bnfold.runtime.binding import BoundRun
from bnfold.runtime.opening import NoProviderError, open_session
from bnfold.runtime.plans import SessionPlan
from bnfold.runtime.telling import run_and_tell
from bnfold.safe_text import one_line

_PROFILED_S: Final = 2.0
_MOST_PROFILED: Final = 20
_DOZEN: Final = 12
_LONGEST_DOZEN_NS: Final = 600_000_000


class Journal:
    """Lines of JSON in a file, whole as soon as they are written."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def note(self, **entry: Any) -> None:
        """Add a line."""
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()


def main(path: str) -> None:
    """Carry out the request in the file."""
    request = json.loads(Path(path).read_text(encoding="utf-8"))
    journal = Journal(Path(request["journal"]))
    plans = {name: SessionPlan.from_data(plan) for name, plan in request["arms"].items()}
    tasks = {"interleave": _interleave, "alone": _alone, "look": _look}
    if request["memory_bytes"] is not None:
        bound_for_good(request["memory_bytes"], request["mapped_bytes"])
    gc.disable()
    tasks[request["task"]](request, plans, journal)
    journal.note(end=True)
    # Sessions of several providers are torn down in no safe order: leave that to the system.
    sys.stdout.flush()
    os._exit(0)


def _interleave(
    request: Mapping[str, Any], plans: Mapping[str, SessionPlan], journal: Journal
) -> None:
    """Open every arm, then warm up and take turns at one batch size after the other."""
    rng = np.random.default_rng(request["seed"])
    names = list(plans)
    order = [names[index] for index in rng.permutation(len(names))]
    wanted = {name for case in request["cases"] for name in case["arms"]}
    sessions = {
        name: session
        for name in order
        if name in wanted
        for session in _opened(name, plans[name], journal)
    }
    for index in rng.permutation(len(request["cases"])):
        case = request["cases"][index]
        inputs = read_arrays(Path(case["inputs"]))
        arms = {
            name: bound
            for name in case["arms"]
            if name in sessions
            for bound in _bound(name, sessions[name], plans[name], inputs, case, journal)
        }
        if request["base"] in arms:
            _take_turns(request, case["index"], arms, rng, journal)


def _take_turns(
    request: Mapping[str, Any],
    case: int,
    arms: Mapping[str, BoundRun],
    rng: np.random.Generator,
    journal: Journal,
) -> None:
    journal.note(case=case, differ=_differences(arms[request["base"]], arms))
    warmth = _warmed(case, arms, request["warm_s"], journal)
    typical = {name: warm.typical_ns for name, warm in warmth.items()}
    until = time.monotonic() + request["budget_s"]
    turn = 0
    while turn < request["fewest_turns"] or time.monotonic() < until:
        taken = take_turn(arms, typical, rng, time.perf_counter_ns)
        told = {name: [one.place, *one.calls_ns] for name, one in taken.items()}
        journal.note(case=case, turn=turn, arms=told)
        turn += 1


@contextmanager
def _telling(journal: Journal, name: str, plan: SessionPlan, **about: Any) -> Iterator[None]:
    """Whatever the runtime raises becomes a line about the arm, and the task goes on."""
    try:
        yield
    except NoProviderError as error:
        journal.note(unavailable=str(error), provider=plan.provider)
    except Exception as error:  # noqa: BLE001 (the runtime raises many kinds; all are answers)
        journal.note(failed=name, message=_said(error, plan), **about)


def _opened(name: str, plan: SessionPlan, journal: Journal) -> Iterator[ort.InferenceSession]:
    """Yield the arm's session, or nothing where it cannot be opened."""
    with _telling(journal, name, plan):
        yield open_session(plan)


def _bound(
    name: str,
    session: ort.InferenceSession,
    plan: SessionPlan,
    inputs: Arrays,
    case: Mapping[str, Any],
    journal: Journal,
) -> Iterator[BoundRun]:
    """Yield a call of the arm that has run, or nothing where it cannot run."""
    with _telling(journal, name, plan, case=case["index"]):
        bound = BoundRun(session, plan, inputs, case["index"])
        bound.first()
        bound()
        yield bound


def _said(error: Exception, plan: SessionPlan) -> str:
    """The runtime's own words; the path of a temporary file would say nothing."""
    return one_line(str(error)).replace(plan.model, Path(plan.model).name)


def _warmed(
    case: int, arms: Mapping[str, Call], warm_s: float, journal: Journal
) -> dict[str, Warmth]:
    """Warm every arm up; networks of many milliseconds get a dozen calls at least."""
    found = {}
    for name, call in arms.items():
        share_ns = int(warm_s / len(arms) * 1e9)
        dozen_ns = min(_DOZEN * time_one(call, time.perf_counter_ns), _LONGEST_DOZEN_NS)
        most_ns = max(share_ns, dozen_ns)
        found[name] = warm = warm_up(call, time.perf_counter_ns, most_ns)
        journal.note(case=case, warmed=name, calls=warm.calls, settled=warm.settled)
    return found


def _differences(base: BoundRun, arms: Mapping[str, BoundRun]) -> dict[str, float]:
    """How far every arm's outputs are from the base's, relative to their size.

    Nothing is said of outputs that cannot be copied from the device (rare element types).
    """
    found = {}
    with suppress(RuntimeError, TypeError, ValueError):
        expected = base.outputs()
        for name, arm in arms.items():
            found[name] = _difference(expected, arm.outputs())
    return found


def _difference(expected: Arrays, found: Arrays) -> float:
    """The largest over outputs; infinite where they cannot be compared at all."""
    if [a.shape for a in expected.values()] != [a.shape for a in found.values()]:
        return float("inf")
    pairs = zip(expected.values(), found.values(), strict=True)
    return max((_distance(one, other) for one, other in pairs), default=0.0)


def _distance(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Root mean square of the difference over that of ``one``; of text, the share unlike."""
    with suppress(TypeError, ValueError), np.errstate(all="ignore"):
        wide, against = one.astype(np.float64), other.astype(np.float64)
        same = (wide == against) | (np.isnan(wide) & np.isnan(against))
        off = float(np.sqrt(np.sum(np.where(same, 0.0, wide - against) ** 2)))
        size = float(np.sqrt(np.nansum(np.where(np.isfinite(wide), wide, 0.0) ** 2)))
        if off == 0:
            return 0.0
        return off / size if size and np.isfinite(off) else float("inf")
    return float(np.mean(one != other))


def _alone(
    request: Mapping[str, Any], plans: Mapping[str, SessionPlan], journal: Journal
) -> None:
    """Session creation, first run and memory of one arm, with the runtime loaded before."""
    ((name, plan),) = plans.items()
    inputs = read_arrays(Path(request["inputs"]))
    tiny = write_tiny(Path(request["journal"]).parent)
    chosen = {k: v for k, v in plan.provider_options.items() if k == "device_id"}
    idle = SessionPlan(str(tiny), provider=plan.provider, provider_options=chosen)
    with _telling(journal, name, plan):
        other = open_session(idle)
        other.run(None, {"x": np.ones((1, 1), np.float32)})
        host, device = peak_host_bytes(), device_used_bytes(plan.provider)
        start = time.perf_counter_ns()
        session = open_session(plan)
        session_ns = time.perf_counter_ns() - start
        bound = BoundRun(session, plan, inputs)
        first_ns = time_one(bound.first, time.perf_counter_ns)
        for _ in range(request["calls"]):
            bound()
        peak, used = peak_host_bytes(), device_used_bytes(plan.provider)
        journal.note(
            alone=name,
            session_ns=session_ns,
            first_run_ns=first_ns,
            peak_host_bytes=peak,
            added_host_bytes=None if peak is None or host is None else peak - host,
            device_bytes=None if used is None or device is None else used - device,
        )


def _look(
    request: Mapping[str, Any], plans: Mapping[str, SessionPlan], journal: Journal
) -> None:
    """Have the runtime write the graph that it runs, and profile its nodes."""
    ((name, plan),) = plans.items()
    inputs = read_arrays(Path(request["inputs"]))
    with _telling(journal, name, plan):
        session = open_session(plan)
        bound = BoundRun(session, plan, inputs)
        bound.first()
        spent_ns = time_one(bound, time.perf_counter_ns)
        most = int(min(max(_PROFILED_S * 1e9 // max(spent_ns, 1), 1), _MOST_PROFILED))
        for _ in range(most):
            bound()
        journal.note(looked=name, profile=session.end_profiling())


if __name__ == "__main__":
    run_and_tell(main)
