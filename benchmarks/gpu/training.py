"""Training with BatchNorm, by layers and whole: torch's, torch.compile's, others' and ours.

This is the side that plans and keeps: it imports no torch. What measures is a worker
(`benchmarks.gpu.worker`), which another one replaces when the device is lost.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.arms import ROOT
from benchmarks.gpu import targets, training_plan
from benchmarks.gpu.crew import Crew
from benchmarks.gpu.record import Context, tell
from benchmarks.gpu.training_plan import Kernels, Task

SECTION: Final = "training"
_SAMPLES: Final = ("samples_ms", "copied")
_PATIENCE: Final = 2.5
_LEAST_LIMIT_S: Final = 120.0
_BEYOND_S: Final = 20.0
_SOURCES: Final = ROOT / "bnfold" / "train"


def run(context: Context) -> None:
    """Measure as much as there is time for, what decides a target first."""
    part = context.results(SECTION)
    tasks = training_plan.plan(dry_run=context.options.dry_run)
    measured = [task for task in tasks if not isinstance(task, Kernels)]
    part |= {"planned": [training_plan.described(task) for task in measured]}
    part |= {"code": code(), "rows": _worth_keeping(context, code()), "not_reached": []}
    if importlib.util.find_spec("torch") is None:
        part["not_reached"] = [task.key for task in measured]
        part["why"] = "torch is not installed"
        return
    with Crew("cpu" if context.options.dry_run else "cuda") as crew:
        _work_through(context, part, tasks, crew)
    _judge(context, part)
    for line in targets.lines(part["targets"]):
        tell(line)


def code() -> str:
    """Return a digest of our layers' source and launches: rows of others are not theirs."""
    digest = hashlib.sha256()
    for path in sorted(_SOURCES.rglob("*")):
        if path.suffix in (".py", ".json"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _worth_keeping(context: Context, now: str) -> list[dict[str, Any]]:
    """Return what an earlier run measured whole, of the same kernels."""
    earlier = context.record.document.get("resumed_rows", {}).pop(SECTION, [])
    return [row for row in earlier if (row["code"], row["outcome"]) == (now, "measured")]


def _work_through(
    context: Context, part: dict[str, Any], tasks: list[Task], crew: Crew
) -> None:
    """Do what fits into the time; what is left out leaves room for what is shorter."""
    known = {row["key"] for row in part["rows"]}
    past: list[tuple[Task, float]] = []
    for task in tasks:
        if task.key in known:
            continue
        needed = training_plan.needed_s(task, past)
        if not _is_time(context, part, needed):
            part["not_reached"].append(task.key)
            continue
        with context.record.step(task.key) as entry:
            begun = context.record.clock()
            entry["outcome"] = _do(context, part, task, needed, crew)
            past.append((task, context.record.clock() - begun))
            _judge(context, part)
        if not crew.ready:
            raise RuntimeError(f"no worker could be started: {entry['outcome']}")


def _do(context: Context, part: dict[str, Any], task: Task, needed: float, crew: Crew) -> str:
    """Have a task done, keep what it found, and say in a line what came out."""
    begun = context.record.clock()
    attempt = max(_PATIENCE * needed, _LEAST_LIMIT_S)
    limit = max(context.left_s, 0.0) + _BEYOND_S
    row = crew.do(training_plan.described(task), attempt, limit)
    row["elapsed_s"] = round(context.record.clock() - begun, 1)
    part["worker"] = crew.ready | {"lost": crew.lost}
    if isinstance(task, Kernels):
        part["kernels"] = row
        crew.retire()  # a profiler that was on makes launches dearer
        return str(row.get("error", "ok"))
    _keep(context, part, task, row)
    return outcome_line(part["rows"][-1])


def _is_time(context: Context, part: dict[str, Any], needed: float) -> bool:
    """Whether to begin; a dry run begins while there is any time, and does one row anyway."""
    if context.options.dry_run:
        return context.left_s > 0 or not part["rows"]
    return context.left_s >= needed


def _keep(context: Context, part: dict[str, Any], task: Task, row: dict[str, Any]) -> None:
    """Add a row, its samples to their own file."""
    told = training_plan.described(task)
    told |= {"code": part["code"], "outcome": _outcome(row)}
    if context.options.samples:
        context.record.keep_samples(task.key, {**told, **row})
    names = part.get("kernels", {}).get("kernels", {}).get(task.key)
    looked_at = {} if names is None else {"kernels": names}
    kept = {name: value for name, value in row.items() if name not in _SAMPLES}
    part["rows"].append(told | looked_at | kept)


def _outcome(row: Mapping[str, Any]) -> str:
    """In a word: an arm that is not to be had here is no failure, one that broke is."""
    if row.get("error") or not row.get("medians_ms"):
        return "failed"
    broken = set(row["failures"]) & {"eager", "compiled", "ours"}
    return "partly" if broken else "measured"


def _judge(context: Context, part: dict[str, Any]) -> None:
    part["targets"] = targets.judge(context.record.document)
    part["summary"] = targets.summary(part["targets"])


def outcome_line(row: Mapping[str, Any]) -> str:
    """Say in a line what came out."""
    told = []
    for pair, quantities in row.get("ratios", {}).items():
        found = quantities.get("step queued") or quantities.get("step")
        told.append(f"{pair} {found['value']:.3g}")
    copied = row.get("of_copy", {}).get("ours", {})
    told += [f"{part} {one['value']:.2f} of copy" for part, one in copied.items()]
    told += [f"error {targets.worst_error(row)}"] if row.get("errors") else []
    told += [f"{arm} failed: {why[:80]}" for arm, why in row.get("failures", {}).items()]
    return "; ".join([row["outcome"], *([row["error"]] if row.get("error") else []), *told])
