"""The arms of inference: every network at several batch sizes and types."""

from __future__ import annotations

import collections
import importlib
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Final

from benchmarks import arms
from benchmarks.gpu import nets, planner
from benchmarks.gpu.planner import Past, Task
from benchmarks.gpu.record import Context, said, tell

SECTION: Final = "inference"
_FIRST_S: Final = 60.0
_LONGEST_S: Final = 60.0
_DRY_S: Final = 4.0
_EXPORTING_SHARE: Final = 0.4
_BEYOND: Final = 1.5
_GRACE_S: Final = 30.0
_AGAIN_S: Final = 10.0


def prepare(context: Context) -> nets.Exports:
    """Start the exports, so that they are done when measuring begins."""
    return nets.start_exports(context.options.nets, context.options.cache)


def run(context: Context) -> None:
    """Measure as much as there is time for, the most telling first."""
    part = context.results(SECTION)
    part |= {"nets": {}, "rows": _resumed(context), "not_reached": []}
    files = _files(context, part)
    passes = planner.DRY_PASSES if context.options.dry_run else planner.PASSES
    done = frozenset(row["key"] for row in part["rows"])
    part["not_reached"] = [task.key for task in planner.plan(list(files), passes, done)]
    _measure_all(context, part, planner.plan(list(files), passes, done), files)


def _resumed(context: Context) -> list[dict[str, Any]]:
    """What an earlier run has measured, where it was to be gone on with."""
    earlier = context.record.document.pop("resumed_rows", [])
    return [row for row in earlier if row["outcome"] == "measured"]


@dataclass(frozen=True, slots=True)
class Files:
    """A network and its folded twin."""

    original: Path
    folded: Path


def _files(context: Context, part: dict[str, Any]) -> dict[str, Files]:
    """Wait for the exports, and fold each; a network that is not to be had is a row."""
    exports: nets.Exports = context.state
    with context.record.step("exports") as entry:
        exports.finish(context.left_s * _EXPORTING_SHARE)
        entry["each"] = dict(exports.seconds)
    found = {}
    for net in context.options.nets:
        why, told = exports.why_missing(net), {}
        if not why:
            with context.record.step(f"fold {net}") as entry:
                found[net], told = _folded(net, context.options.cache)
            why = "" if net in found else str(entry["outcome"])
        part["nets"][net] = {"exporter": nets.exporter_of(net), "error": why, **told}
        if why:
            part["rows"].append(_row(net, why))
    context.record.save()
    return found


def _folded(net: str, cache: Path) -> tuple[Files, dict[str, Any]]:
    bnfold = importlib.import_module("bnfold")
    original = nets.path_of(net, cache)
    folded = cache / f"{original.stem}.folded.onnx"
    result = bnfold.fold(original, verify=False)
    result.save(folded)
    report = result.report
    told = {
        "file_bytes": original.stat().st_size,
        "folds": len(report.steps),
        "refusals": dict(collections.Counter(str(one.code) for one in report.refusals)),
    }
    return Files(original, folded), told


def _row(net: str, why: str, task: Task | None = None) -> dict[str, Any]:
    """A row of the results: what was asked, and so far nothing but a reason."""
    how = task.how if task else None
    return {
        "key": task.key if task else net,
        "net": net,
        "batch": how.batch if how else None,
        "dtype": how.dtype if how else "",
        "cuda_graph": bool(how and how.cuda_graph),
        "arms": list(how.arms) if how else [],
        "outcome": "failed",
        "why": why,
        "share_s": None,
        "elapsed_s": None,
        "document": None,
    }


def _measure_all(
    context: Context, part: dict[str, Any], tasks: Sequence[Task], files: dict[str, Files]
) -> None:
    """Work through the plan; what had too little time for an interval comes once more."""
    past: list[Past] = []
    queue, again = list(tasks), set()
    while queue:
        task = queue.pop(0)
        share = _share_s(context, task, len(queue) + 1, past)
        if share is None:
            continue
        row = _row(task.net, "", task)
        part["rows"].append(row)
        with context.record.step(task.key) as entry:
            _measure(context, row, files[task.net], task, share)
            entry["outcome"] = _outcome_line(row)
        if row["outcome"] != "measured":
            continue
        count = planner.processes_of(row["document"])
        past.append(Past(task.net, row["elapsed_s"], count))
        _settle(part, row)
        if _is_too_short(context, count) and task.key not in again:
            again.add(task.key)
            queue = planner.put_off(queue, task)


def _share_s(context: Context, task: Task, left: int, past: Sequence[Past]) -> float | None:
    dry = context.options.dry_run
    needed = _DRY_S if dry else planner.needed_s(task.net, past, _FIRST_S)
    share = planner.share_s(context.left_s, left, needed, _LONGEST_S)
    if share is None:
        tell(f"{task.key}: not reached, {context.left_s:.0f} s left, {needed:.0f} s needed")
    return share


def _is_too_short(context: Context, processes: int) -> bool:
    return not context.options.dry_run and processes < planner.NEEDED_PROCESSES


def _settle(part: dict[str, Any], row: dict[str, Any]) -> None:
    """A measured row stands for its task, in place of an earlier one that was too short."""
    part["rows"] = [one for one in part["rows"] if one is row or one["key"] != row["key"]]
    part["not_reached"] = [key for key in part["not_reached"] if key != row["key"]]


def _measure(
    context: Context, row: dict[str, Any], files: Files, task: Task, share: float
) -> None:
    """Fill the row; Ctrl-C fills it with what there is, and goes on to the caller."""
    begun = context.record.clock()
    row["share_s"] = round(share, 1)
    limit = min(_BEYOND * share + _GRACE_S, max(context.left_s, 0) + _GRACE_S)
    with _alarm(limit) as alarm:
        try:
            document = _benchmark(context, files, task, share)
        except KeyboardInterrupt:
            if not alarm.rang:
                row["why"] = "interrupted"
                raise
            row["why"] = f"hung: ended after {limit:.0f} s"
            return
        except Exception as error:  # noqa: BLE001  one network's failure is its row
            row["why"] = said(error)
            return
        finally:
            row["elapsed_s"] = round(context.record.clock() - begun, 1)
    _fill(row, document, context)
    if arms.was_interrupted(document) and not alarm.rang:
        raise KeyboardInterrupt


def _benchmark(context: Context, files: Files, task: Task, share: float) -> dict[str, Any]:
    bnfold = importlib.import_module("bnfold")
    to_json = importlib.import_module("bnfold.report.to_json")
    report = bnfold.benchmark(
        files.original,
        files.folded,
        arms=task.how.arms,
        provider=context.options.provider,
        batch=task.how.batch,
        threads=1 if context.options.dry_run else 0,
        dtype=task.how.dtype,
        cuda_graph=task.how.cuda_graph,
        max_time_s=share,
    )
    document: dict[str, Any] = to_json.bench_document(report)
    return document


def _fill(row: dict[str, Any], document: dict[str, Any], context: Context) -> None:
    """Put a document into a row, and say how it ended."""
    cases = document["cases"]
    failures = [f"{arm}: {why}" for case in cases for arm, why in case["failures"].items()]
    timed = bool(cases) and bool(cases[0]["latencies"])
    row["outcome"] = "measured" if timed else "failed"
    row["why"] = "; ".join(failures) or ("" if timed else "ended before anything was timed")
    row["document"] = arms.without_samples(document)
    if context.options.samples:
        context.record.keep_samples(row["key"], document)


def _outcome_line(row: dict[str, Any]) -> str:
    if row["outcome"] != "measured":
        return f"failed: {row['why']}"
    return f"folded / original {arms.ratio_cell(row['document']['cases'][0], 'folded')}"


@dataclass(slots=True)
class _Alarm:
    """Whether the time was over."""

    rang: bool = False


@contextmanager
def _alarm(seconds: float) -> Iterator[_Alarm]:
    """Interrupt what takes longer, as Ctrl-C does: a benchmark then returns what it has."""
    alarm = _Alarm()

    def ring(_signal: int, _frame: FrameType | None) -> None:
        alarm.rang = True
        raise KeyboardInterrupt

    if not hasattr(signal, "setitimer"):
        yield alarm
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        yield alarm
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
