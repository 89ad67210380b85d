"""What the demo has to say about a network: in rows, in sentences, and in files."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

import bnfold
from bnfold.records import VerifyReport
from models.examining import BY_DEFAULT, FOLDED, NETS, OUT, ROOT, Outcome
from models.measuring import Ratio


def shown(path: Path) -> str:
    """Return a path as one would type it in the repository."""
    return path.relative_to(ROOT).as_posix()


def command_line(outcome: Outcome) -> str:
    """Return the command that does the same fold in a terminal."""
    return f"bnfold fold {shown(outcome.original)} -o {shown(outcome.folded)}"


def move_rows(outcome: Outcome) -> Iterator[tuple[str, str, str, str]]:
    """Yield each layer that disappeared, how it moved, where to, and the weights rewritten."""
    report = outcome.fold.report
    for step in report.steps:
        names = (", ".join(part) for part in (step.site, step.absorbed_by, step.tensors))
        site, into, tensors = names
        yield (site, step.move, into, tensors)
    for stay in report.stays:
        yield (", ".join(stay.site), "stays", "; ".join(r.why for r in stay.refusals), "")


def comparison_rows(outcome: Outcome) -> Iterator[tuple[str, str, str]]:
    """Yield what is compared, its value before, and its value after the fold."""
    seen = outcome.agreement
    before, after = outcome.nodes_before, outcome.nodes_after
    kind = "BatchNormalization"
    yield (f"{kind} nodes", str(before[kind]), str(after[kind]))
    yield ("nodes in all", str(before.total()), str(after.total()))
    yield (
        f"accuracy on {seen.images} test images",
        f"{seen.right_before / seen.images:.2%}",
        f"{seen.right_after / seen.images:.2%}",
    )
    yield ("same answer", "", f"{seen.same_answers} of {seen.images}")
    yield ("largest difference of an output", "", f"{seen.largest_difference:.1e}")
    yield ("closest decision of the original", f"{seen.closest_call:.1e}", "")


def timing_rows(outcome: Outcome) -> Iterator[tuple[str, str, str, str]]:
    """Yield what was timed, the ratio, its interval, and what it means."""
    for timing in outcome.timings:
        ratio = timing.ratio
        interval = f"{ratio.low:.3f} – {ratio.high:.3f}"
        yield (timing.what, f"{ratio.median:.3f}", interval, verdict(ratio))


def verdict(ratio: Ratio) -> str:
    """Say in words what a ratio to the folded model shows."""
    if not ratio.is_detectable:
        return "no detectable difference"
    return "slower than folded" if ratio.median > 1 else "faster than folded"


def runtime_remark(outcome: Outcome) -> str:
    """Say what ONNX Runtime makes of the models by itself, and what to expect of the times."""
    runs = outcome.nodes_run
    counted = "; ".join(f"{arm}: {nodes.total()}" for arm, nodes in runs.items())
    left = runs[BY_DEFAULT]["BatchNormalization"]
    if runs[BY_DEFAULT] == runs[FOLDED]:
        follows = (
            "By default it folds these BatchNormalization nodes itself while it loads the"
            " model and then runs the same operators, so no steady-state speedup is expected"
            " over its default, and none is claimed; what is saved is the work while loading."
        )
    else:
        follows = (
            f"It leaves {left} of these BatchNormalization nodes in place even by default, so"
            " the folded model does run fewer operators."
        )
    return f"Operators that ONNX Runtime runs after its own optimisation: {counted}. {follows}"


def check_remark(check: VerifyReport | None) -> str:
    """Say in a sentence what bnfold's own check of the fold found."""
    if check is None:
        return "bnfold's own check did not run."
    worst = max((output.ratio for output in check.outputs), default=0.0)
    limit = min((output.limit for output in check.outputs), default=0.0)
    return (
        f"bnfold's own check, on {len(check.cases)} sets of random inputs: {check.verdict};"
        f" largest difference {worst:.2g} times the original's own rounding noise"
        f" (limit {limit:g})."
    )


def write_report(outcomes: list[Outcome]) -> None:
    """Write ``report.md`` for people and ``report.json`` for programs."""
    markdown = "\n".join(line for outcome in outcomes for line in markdown_lines(outcome))
    (OUT / "report.md").write_text(f"# bnfold demo\n\n{markdown}\n", encoding="utf-8")
    versions = {
        "python": platform.python_version(),
        "bnfold": bnfold.__version__,
        "onnx": onnx.__version__,
        "onnxruntime": ort.__version__,
    }
    record = {"versions": versions, "nets": {o.net: as_record(o) for o in outcomes}}
    text = json.dumps(record, indent=2, ensure_ascii=False)
    (OUT / "report.json").write_text(text + "\n", encoding="utf-8")


def markdown_lines(outcome: Outcome) -> Iterator[str]:
    """Yield the Markdown report of one network, line by line."""
    yield f"## {outcome.original.name}: {NETS[outcome.net]}\n"
    yield f"    {command_line(outcome)}\n"
    yield "| layer that disappeared | moved | into | weights rewritten |\n|---|---|---|---|"
    yield from (f"| {' | '.join(row)} |" for row in move_rows(outcome))
    yield "\n| | original | folded |\n|---|--:|--:|"
    yield from (f"| {' | '.join(row)} |" for row in comparison_rows(outcome))
    yield f"\n{check_remark(outcome.fold.check)}\n"
    yield "| time divided by that of the folded model | ratio | 95 % interval | |"
    yield "|---|--:|--:|---|"
    yield from (f"| {' | '.join(row)} |" for row in timing_rows(outcome))
    yield f"\n{runtime_remark(outcome)}\n"
    yield from (
        f"- {'yes' if holds else 'NO'}: {what}" for what, holds in outcome.checks.items()
    )
    yield ""


def as_record(outcome: Outcome) -> dict[str, Any]:
    """Return the report of one network as plain data."""
    return {
        "original": shown(outcome.original),
        "folded": shown(outcome.folded),
        "checks": outcome.checks,
        "operators": {"before": outcome.nodes_before, "after": outcome.nodes_after},
        "operators_run": outcome.nodes_run,
        "steps": [asdict(step) for step in outcome.fold.report.steps],
        "answers": asdict(outcome.agreement),
        "time_divided_by_folded": {
            timing.what: asdict(timing.ratio) for timing in outcome.timings
        },
    }
