"""Which targets of the kernels a run meets: pure functions of its document.

A row meets a target when its whole interval does. Kernels are judged by time with the CPU out
of the way; a single call from Python stands beside, with a verdict of its own.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.gpu.training_plan import Layer, Net, Task, task_of

MET, MISSED, UNDECIDED = "met", "not met", "undecided"
MEASURED, UNMEASURED = "measured", "not measured"
LARGE_BYTES: Final = 50_000_000
_DRY: Final = "a dry run on a CPU"
_ITEM_BYTES: Final = {"bfloat16": 2, "float16": 2, "float32": 4}
_HALVES: Final = ("bfloat16", "float16")

Figure = Mapping[str, float | None]
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """Something to be reached.

    Attributes:
        key: A name.
        says: What is to be reached.
        bound: The least figure; None where there is only something to report.
        asks: Whether it is about a task.
        figure: Reads the figure that decides out of a row; None where it is not there.
        called: The same for a call as Python makes it, where that is told apart.
        rival: The arm that ours is compared with; empty if there is none.
    """

    key: str
    says: str
    bound: float | None
    asks: Callable[[Task], bool]
    figure: Callable[[Row], Figure | None]
    called: Callable[[Row], Figure | None]
    rival: str = ""


def bytes_of(layer: Layer) -> int:
    """Return the size of one tensor of a layer."""
    values = layer.batch * layer.channels * layer.side**2
    return values * _ITEM_BYTES[layer.dtype]


def _is_large(task: Task) -> bool:
    halves = isinstance(task, Layer) and task.dtype in _HALVES and task.channels_last
    return halves and isinstance(task, Layer) and bytes_of(task) >= LARGE_BYTES


def _is_fused(task: Task) -> bool:
    return isinstance(task, Layer) and task.dtype == "bfloat16" and task.activation == "relu"


def _is_cudnns(task: Task) -> bool:
    plain = isinstance(task, Layer) and task.kind == "bn"
    return plain and isinstance(task, Layer) and task.dtype == "float16" and task.channels_last


def _is_net(task: Task) -> bool:
    return isinstance(task, Net)


def _of_copy(part: str) -> Callable[[Row], Figure | None]:
    return lambda row: row.get("of_copy", {}).get("ours", {}).get(part)


def _ratio(rival: str, quantity: str) -> Callable[[Row], Figure | None]:
    return lambda row: row.get("ratios", {}).get(f"{rival} / ours", {}).get(quantity)


def _of_cudnn(quantity: str) -> Callable[[Row], Figure | None]:
    return lambda row: _ratio("eager", quantity)(row) if ran_cudnn(row) else None


def _peak(rival: str) -> Callable[[Row], Figure | None]:
    """How many times the memory of ours another needs: a count, so it has no interval."""

    def figure(row: Row) -> Figure | None:
        peaks = row.get("peak_bytes", {})
        if not peaks.get(rival) or not peaks.get("ours"):
            return None
        value = round(peaks[rival] / peaks["ours"], 4)
        return {"value": value, "low": value, "high": value}

    return figure


def _nothing(_row: Row) -> Figure | None:
    return None


def ran_cudnn(row: Row) -> bool:
    """Whether torch ran cuDNN's kernels: by their names, else by torch's own word."""
    names = row.get("kernels")
    if names:
        return any("cudnn" in one or "nhwc_batch_norm" in one for one in names)
    return bool(row.get("backend") == "cudnn")


TARGETS: Final = (
    *(
        Target(
            f"copy bandwidth, {part}",
            f"{part}: at least 85 % of a copy's bandwidth, tensors of 50 MB and more, bfloat16"
            " and float16, channels_last",
            0.85,
            _is_large,
            _of_copy(part),
            _nothing,
        )
        for part in ("forward", "backward")
    ),
    Target(
        "torch eager",
        "BN+ReLU and BN+add+ReLU in bfloat16, forward and backward: at least 1.5 times as fast"
        " as torch",
        1.5,
        _is_fused,
        _ratio("eager", "step queued"),
        _ratio("eager", "step called"),
        "eager",
    ),
    Target(
        "torch.compile",
        "the same: at least 1.1 times as fast as torch.compile",
        1.1,
        _is_fused,
        _ratio("compiled", "step queued"),
        _ratio("compiled", "step called"),
        "compiled",
    ),
    Target(
        "cuDNN",
        "plain BN in float16, channels_last, forward and backward: at least as fast as cuDNN",
        1.0,
        _is_cudnns,
        _of_cudnn("step queued"),
        _of_cudnn("step called"),
        "eager",
    ),
    *(
        Target(
            f"whole step, {rival}",
            f"a training step of ResNet-50: time of {rival} over ours",
            None,
            _is_net,
            _ratio(rival, "step"),
            _nothing,
            rival,
        )
        for rival in ("eager", "compiled")
    ),
    *(
        Target(
            f"peak memory, {rival}",
            f"the same step: peak memory of {rival} over ours",
            None,
            _is_net,
            _peak(rival),
            _nothing,
            rival,
        )
        for rival in ("eager", "compiled")
    ),
)


def judge(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return, for every target, what each row that it asks for says, and what they come to."""
    part = document["sections"].get("training", {})
    tasks = [task_of(one) for one in part.get("planned", ())]
    rows = {row["key"]: row for row in part.get("rows", ())}
    return [
        _judged(target, [task for task in tasks if target.asks(task)], rows, document)
        for target in TARGETS
    ]


def _judged(
    target: Target,
    tasks: Sequence[Task],
    rows: Mapping[str, Row],
    document: Mapping[str, Any],
) -> dict[str, Any]:
    found = [_of_row(target, task, rows.get(task.key), document) for task in tasks]
    counts = collections.Counter(one["verdict"] for one in found)
    called = collections.Counter(one["called"]["verdict"] for one in found if one["called"])
    told: dict[str, Any] = {"target": target.key, "says": target.says, "bound": target.bound}
    told |= {"verdict": _overall(counts), "counts": dict(counts), "called": dict(called)}
    values = [one for one in found if one["value"] is not None]
    lowest = min(values, key=lambda one: float(one["value"]), default=None)
    return told | {"lowest": lowest["key"] if lowest else None, "rows": found}


def _overall(counts: Mapping[str, int]) -> str:
    """What the rows come to: the worst of what was measured, and whether all of it was."""
    for verdict in (MISSED, UNDECIDED):
        if counts.get(verdict):
            return verdict
    told = [verdict for verdict in (MET, MEASURED) if counts.get(verdict)]
    if not told:
        return UNMEASURED
    return f"{told[0]}, as far as measured" if counts.get(UNMEASURED) else told[0]


def _of_row(
    target: Target, task: Task, row: Row | None, document: Mapping[str, Any]
) -> dict[str, Any]:
    """Return figure and verdict of a row."""
    told: dict[str, Any] = {"key": task.key, "verdict": UNMEASURED, "called": None}
    told |= {"value": None, "low": None, "high": None}
    if document["dry_run"] or row is None:
        return told | {"why": _DRY if document["dry_run"] else "not reached"}
    figure, called, why = target.figure(row), target.called(row), _fault(target, row)
    told |= figure or {}
    if why:
        return told | {"verdict": MISSED if _is_bad(row) else UNMEASURED, "why": why}
    if figure is None:
        return told | {"why": "the figure is not there"}
    if called is not None:
        told["called"] = {**called, "verdict": _verdict(target, called)}
    told["verdict"] = _verdict(target, figure)
    few = told["verdict"] == UNMEASURED
    return told | {"why": "too few turns for an interval" if few else ""}


def _verdict(target: Target, figure: Figure) -> str:
    low, high = figure["low"], figure["high"]
    if low is None or high is None:
        return UNMEASURED
    if target.bound is None:
        return MEASURED
    return MET if low >= target.bound else MISSED if high < target.bound else UNDECIDED


def _is_bad(row: Row) -> bool:
    """Whether ours failed or computes something else: then no time can meet a target."""
    differs = row.get("correct") is False or row.get("agrees", {}).get("ours") is False
    return differs or "ours" in row.get("failures", {})


def _fault(target: Target, row: Row) -> str:
    """Say why a row cannot be judged by its figure; empty if it can."""
    failures = row.get("failures", {})
    if "ours" in failures:
        return f"ours failed: {failures['ours']}"
    if row.get("correct") is False:
        return f"ours is wrong: {worst_error(row)}"
    if "unchecked" in row:
        return f"ours was not checked: {row['unchecked']}"
    if row.get("agrees", {}).get("ours") is False:
        return "ours does not learn what torch does"
    if target.rival in failures:
        return f"{target.rival} failed: {failures[target.rival]}"
    if row.get("error"):
        return str(row["error"])
    if target.key == "cuDNN" and not ran_cudnn(row):
        return "torch did not run cuDNN here"
    return ""


def worst_error(row: Row) -> str:
    """Return the largest error of a row in words; empty where none is known."""
    found = row.get("errors") or {}
    name = max(found, key=lambda one: float(found[one]), default="")
    return f"{name} {float(found[name]):.3g}" if name else ""


def lines(judged: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Say in a line each what the targets come to, and then all of them together."""
    for one in judged:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in one["counts"].items())
        lowest = next((row for row in one["rows"] if row["key"] == one["lowest"]), None)
        found = f"; lowest {lowest['value']:.3f}, {lowest['key']}" if lowest else ""
        yield f"{one['target']}: {one['verdict']} ({counts or 'no rows'}){found}"
    yield summary(judged)


def summary(judged: Sequence[Mapping[str, Any]]) -> str:
    """Say in a line what came out."""
    bound = [one for one in judged if one["bound"] is not None]
    counts = collections.Counter(one["verdict"] for one in bound)
    told = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return f"Of {len(bound)} targets with a bound: {told}."
