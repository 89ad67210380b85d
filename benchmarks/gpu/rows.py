"""What measurements left behind: a row for each, with a case for every batch size of it.

Rows are plain data, as they stand in the results: functions here read them and weed them out.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Sequence
from typing import Any, Final

from benchmarks import arms
from benchmarks.gpu.planner import Pass, Past, Task

Row = dict[str, Any]
MEASURED: Final = "measured"
PARTLY: Final = "partly"
FAILED: Final = "failed"
REFUSED: Final = "refused"
"""Nothing was run: a model, for instance, whose batch size is fixed at another one."""

_BASE: Final = "original"
_UNTIMED: Final = "ended before anything was timed"


def of_net(net: str, why: str) -> Row:
    """Return the row of a network that is not to be had."""
    nothing = Task(net, Pass((), dtype="", arms=()))
    return {**of_task(nothing, details=False), "key": net, "why": why}


def of_task(task: Task, *, details: bool) -> Row:
    """Return what was asked for, as yet without an answer."""
    how = task.how
    return {
        "key": task.key,
        "net": task.net,
        "batches": list(how.batches),
        "dtype": how.dtype,
        "cuda_graph": how.cuda_graph,
        "arms": list(how.arms),
        "details": details,
        "outcome": FAILED,
        "why": "",
        "share_s": None,
        "elapsed_s": None,
        "document": None,
    }


def fill(row: Row, document: dict[str, Any]) -> None:
    """Put a benchmark's document into its row, and say how it ended."""
    small = arms.without_samples(document)
    small["cases"] = [
        {**case, "series": _by_arm(case["series"])} for case in small.get("cases", ())
    ]
    row["document"] = small
    _say_how_it_ended(row, small["cases"])


def _say_how_it_ended(row: Row, cases: Sequence[dict[str, Any]]) -> None:
    timed = [bool(case["latencies"]) for case in cases]
    row["outcome"] = MEASURED if timed and all(timed) else PARTLY if any(timed) else FAILED
    row["why"] = "; ".join(_reasons(cases)) or ("" if timed else _UNTIMED)


def _by_arm(series: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What all processes measured of an arm, in numbers."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in series:
        found.setdefault(one["arm"], []).append(one)
    return [
        {
            "arm": arm,
            "processes": len({one["process"] for one in those}),
            "settled": sum(one["settled"] for one in those),
            **{key: sum(o[key] for o in those) for key in ("warm_up_calls", "turns", "calls")},
        }
        for arm, those in found.items()
    ]


def _reasons(cases: Sequence[dict[str, Any]]) -> Iterator[str]:
    """What went wrong; what is said of several batch sizes is said once."""
    told: dict[str, list[str]] = collections.defaultdict(list)
    for case in cases:
        for arm, why in case["failures"].items():
            told[f"{arm}: {why}"].append(str(case["batch"]))
        if not case["latencies"] and not case["failures"]:
            told[_UNTIMED].append(str(case["batch"]))
    for why, batches in told.items():
        yield f"batch {', '.join(batches)}: {why}"


def case_of(row: Row, batch: int) -> dict[str, Any] | None:
    """Return what was measured at a batch size; None where nothing is known of it."""
    document = row["document"] or {"cases": ()}
    return next((case for case in document["cases"] if case["batch"] == batch), None)


def processes(row: Row, batch: int | None = None) -> int:
    """Return how many processes measured, at a batch size or at any."""
    counts = [
        one["processes"]
        for case in (row["document"] or {"cases": ()})["cases"]
        if batch in (None, case["batch"])
        for one in case["series"]
    ]
    return max(counts, default=0)


def done(rows: Sequence[Row], least: int) -> frozenset[str]:
    """Return the keys of the cases that at least so many processes measured."""
    return frozenset(
        key
        for row in rows
        for batch, key in zip(row["batches"], task_of(row).case_keys, strict=True)
        if processes(row, batch) >= least
    )


def task_of(row: Row) -> Task:
    """Return the measurement that a row is about."""
    how = Pass(tuple(row["batches"]), row["dtype"], row["cuda_graph"], arms=tuple(row["arms"]))
    return Task(row["net"], how)


def pasts(rows: Sequence[Row]) -> list[Past]:
    """Return what measurements took, of those that are there with all their cases."""
    whole = [row for row in rows if processes(row) and row["key"] == task_of(row).key]
    return [
        Past(task_of(row), row["details"], processes(row), row["elapsed_s"], _timed_s(row))
        for row in whole
    ]


def _timed_s(row: Row) -> float:
    latencies = [one for case in row["document"]["cases"] for one in case["latencies"]]
    timed_ms: float = sum(arms.number(one["mean_ms"]) * one["calls"] for one in latencies)
    return min(timed_ms / 1e3, float(row["elapsed_s"]))


def settle(rows: list[Row], new: Row) -> None:
    """Of two measurements of one case keep the one that more processes made.

    What an earlier one told of starts and of what runs goes over when nothing else is left.
    """
    for old in [one for one in rows if one is not new and _is_alike(one, new)]:
        for batch in [one for one in old["batches"] if one in new["batches"]]:
            worse = new if processes(old, batch) > processes(new, batch) else old
            _leave_out(worse, batch)
        if not old["batches"]:
            _hand_over(old, new)
    rows[:] = [row for row in rows if row["batches"] or not row["dtype"]]


def _is_alike(one: Row, other: Row) -> bool:
    return all(one[key] == other[key] for key in ("net", "dtype", "cuda_graph"))


def _leave_out(row: Row, batch: int) -> None:
    row["batches"] = [one for one in row["batches"] if one != batch]
    if row["document"]:
        cases = [case for case in row["document"]["cases"] if case["batch"] != batch]
        row["document"] = {**row["document"], "cases": cases}
        _say_how_it_ended(row, cases)


def _hand_over(old: Row, new: Row) -> None:
    if old["document"] and new["document"] and not new["document"]["graphs"]:
        new["document"] |= {key: old["document"][key] for key in ("graphs", "starts", "why")}


def worth_keeping(rows: Sequence[Row]) -> list[Row]:
    """Return what an earlier run has timed; what it has not is tried again."""
    kept = [dict(row) for row in rows if row["outcome"] in (MEASURED, PARTLY)]
    for row in kept:
        for case in row["document"]["cases"]:
            if not case["latencies"]:
                _leave_out(row, case["batch"])
    return kept


def looked_at(rows: Sequence[Row], task: Task) -> bool:
    """Whether it is known already what runs of a network in this type."""
    return any(
        row["net"] == task.net
        and row["dtype"] == task.how.dtype
        and bool(row["document"] and row["document"]["graphs"])
        for row in rows
    )


def once_more(row: Row, task: Task, least: int) -> list[Task]:
    """Return what a measurement has left open, as measurements to come.

    What fewer processes than ``least`` measured comes together. What may have had no chance
    beside its other batch sizes comes alone: because the whole was refused, or because
    processes ended without a word of the original.
    """
    if row["document"] is None:
        batches = row["batches"] if row["outcome"] == REFUSED else ()
        return [task.at([one]) for one in batches] if len(batches) > 1 else []
    cases = row["document"]["cases"]
    short = [one["batch"] for one in cases if 0 < processes(row, one["batch"]) < least]
    crashed = [one["batch"] for one in cases if len(cases) > 1 and _had_no_chance(one)]
    together = [task.at(short)] if short else []
    return together + [task.at([batch]) for batch in crashed]


def _had_no_chance(case: dict[str, Any]) -> bool:
    silent = not case["latencies"] and _BASE not in case["failures"]
    return silent and case["ending"] == "failed"
