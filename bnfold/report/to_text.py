"""A fold in a few lines of plain text: no colour, no table, no package."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from bnfold.records import FoldReport, Verdict, VerifyReport


def fold_to_text(
    report: FoldReport, check: VerifyReport | None, model: str, written: Path | None
) -> str:
    """Return what was folded, what stayed and why, and what the check said."""
    lines = [f"{model}: {len(report.steps)} folds, {len(report.stays)} maps stay"]
    lines += [f"  {line}" for line in fold_lines(report, check)]
    lines.append(f"  written: {written}" if written is not None else "  nothing written")
    return "\n".join(lines)


def fold_lines(report: FoldReport, check: VerifyReport | None) -> list[str]:
    """Return how operators changed, what stopped maps, warnings, and what the check said."""
    lines = [*_counts(report), *_reasons(report)]
    lines += [f"warning: {warning}" for warning in report.warnings]
    if report.cloned_bytes:
        lines.append(
            f"grown by {report.cloned_bytes} bytes: weights that other nodes read, or that"
            " nodes computed, were written anew"
        )
    nothing = check is None and not report.steps
    lines.append(f"check: {'nothing to check' if nothing else _check(check)}")
    return lines


def _counts(report: FoldReport) -> list[str]:
    before, after = report.counts_before, report.counts_after
    return [
        f"{kind}: {before.get(kind, 0)} → {after.get(kind, 0)}"
        for kind in sorted({*before, *after})
        if before.get(kind, 0) != after.get(kind, 0)
    ]


def _reasons(report: FoldReport) -> list[str]:
    found = Counter((stay.rule, stay.refusals[0].code) for stay in report.stays)
    return [f"stays: {count} × {rule} ({code})" for (rule, code), count in found.most_common()]


def _check(check: VerifyReport | None) -> str:
    if check is None:
        return "not done"
    notes = "".join(f"\n  warning: {warning}" for warning in check.warnings)
    if check.verdict is Verdict.NOT_JUDGED:
        return f"could not be judged: {check.why}{notes}"
    ratio = max((output.ratio for output in check.outputs), default=0.0)
    limit = max((output.limit for output in check.outputs), default=0.0)
    return (
        f"{check.verdict}; the largest difference is {ratio:.2g} times the original's own"
        f" rounding noise (limit {limit:.3g}), over {len(check.cases)} inputs{notes}"
    )
