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
from benchmarks.gpu import nets, planner, rows
from benchmarks.gpu.planner import Pass, Past, Task
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
    earlier = context.record.document.get("resumed_rows", {}).pop(SECTION, [])
    part |= {"nets": {}, "rows": rows.worth_keeping(earlier), "not_reached": []}
    files = _files(context, part)
    passes = planner.DRY_PASSES if context.options.dry_run else planner.PASSES
    _measure_all(context, part, passes, files)


def _least(context: Context) -> int:
    """With how many processes a case counts as measured; a dry run takes any."""
    return 1 if context.options.dry_run else planner.NEEDED_PROCESSES


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
            part["rows"].append(rows.of_net(net, why))
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


def _measure_all(
    context: Context, part: dict[str, Any], passes: Sequence[Pass], files: dict[str, Files]
) -> None:
    """Work through the plan; what had too little time for an interval comes once more."""
    past, again = rows.pasts(part["rows"]), set[str]()
    keys = [key for task in planner.plan(list(files), passes) for key in task.case_keys]
    known = _take_stock(context, part, keys)
    queue = planner.plan(list(files), passes, known)
    while queue:
        task = queue.pop(0)
        row = _measured(context, part, [task, *queue], past, files[task.net])
        _take_stock(context, part, keys)
        if row is None:
            continue
        past += rows.pasts([row])
        if task.key in again:
            continue
        for one in rows.once_more(row, task, _least(context)):
            again.add(one.key)
            queue = planner.put_off(queue, one)
    tell(f"{len(keys) - len(part['not_reached'])} of {len(keys)} planned cases are measured")


def _take_stock(
    context: Context, part: dict[str, Any], planned: Sequence[str]
) -> frozenset[str]:
    """Return the keys of what is measured, and note what of the plan is not."""
    known = rows.done(part["rows"], _least(context))
    missing = [key for key in planned if key not in known]
    part |= {"planned": len(planned), "not_reached": missing}
    return known


def _measured(
    context: Context,
    part: dict[str, Any],
    queue: Sequence[Task],
    past: Sequence[Past],
    files: Files,
) -> rows.Row | None:
    """Measure the first of the queue and return its row; None where time is too short."""
    task = queue[0]
    details = _takes_details(context, part, queue, past)
    share = _share_s(context, queue, past, details=details)
    if share is None and context.options.dry_run and not past:
        share = _DRY_S  # one at least, however slow the machine: the path is to be walked
    if share is None:
        return None
    row = rows.of_task(task, details=details)
    part["rows"].append(row)
    with context.record.step(task.key) as entry:
        try:
            _measure(context, row, files, task, share)
        finally:
            entry["outcome"] = _outcome_line(row)
            rows.settle(part["rows"], row)
    return row


def _takes_details(
    context: Context, part: dict[str, Any], queue: Sequence[Task], past: Sequence[Past]
) -> bool:
    """Whether to look at what runs: once for each network and type, if there is time."""
    task, *others = queue
    if not task.how.details or rows.looked_at(part["rows"], task):
        return False
    if context.options.dry_run:
        return True
    return planner.affords_details(task, others, context.left_s, past)


def _share_s(
    context: Context, queue: Sequence[Task], past: Sequence[Past], *, details: bool
) -> float | None:
    task = queue[0]
    needed = planner.needed_s(task, past, _FIRST_S, details=details)
    if context.options.dry_run:
        needed = _DRY_S
    return planner.share_s(context.left_s, len(queue), needed, _LONGEST_S)


def _measure(context: Context, row: rows.Row, files: Files, task: Task, share: float) -> None:
    """Fill the row; Ctrl-C fills it with what there is, and goes on to the caller."""
    begun = context.record.clock()
    row["share_s"] = round(share, 1)
    limit = min(_BEYOND * share + _GRACE_S, max(context.left_s, 0) + _GRACE_S)
    with _alarm(limit) as alarm:
        try:
            document = _benchmark(context, files, task, share, details=row["details"])
        except KeyboardInterrupt:
            if not alarm.rang:
                row["why"] = "interrupted"
                raise
            row["why"] = f"hung: ended after {limit:.0f} s"
            return
        except Exception as error:  # noqa: BLE001  one network's failure is its row
            row["why"] = said(error)
            if type(error).__name__ == "UsageError":
                row["outcome"] = rows.REFUSED
            return
        finally:
            row["elapsed_s"] = round(context.record.clock() - begun, 1)
    rows.fill(row, document)
    if context.options.samples:
        context.record.keep_samples(row["key"], document)
    if arms.was_interrupted(document) and not alarm.rang:
        raise KeyboardInterrupt


def _benchmark(
    context: Context, files: Files, task: Task, share: float, *, details: bool
) -> dict[str, Any]:
    bnfold = importlib.import_module("bnfold")
    to_json = importlib.import_module("bnfold.report.to_json")
    report = bnfold.benchmark(
        files.original,
        files.folded,
        arms=task.how.arms,
        provider=context.options.provider,
        batch=task.how.batches,
        threads=1 if context.options.dry_run else 0,
        dtype=task.how.dtype,
        cuda_graph=task.how.cuda_graph,
        max_time_s=share,
        details=details,
    )
    document: dict[str, Any] = to_json.bench_document(report)
    return document


def _outcome_line(row: rows.Row) -> str:
    """Say in a line what came out, at every batch size."""
    told = [
        f"batch {case['batch']} {arms.ratio_cell(case, 'folded')}"
        for case in (row["document"] or {"cases": ()})["cases"]
        if case["latencies"]
    ]
    found = [f"folded / original: {', '.join(told)}"] if told else []
    return "; ".join([*found, *([f"{row['outcome']}: {row['why']}"] if row["why"] else [])])


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
