"""A fold in a few lines of plain text: no colour, no table, no package."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bnfold.records import FoldReport, Verdict, VerifyReport
from bnfold.report.words import counted, folds_said
from bnfold.safe_text import Shown, shown_lines


def fold_to_text(
    report: FoldReport, check: VerifyReport | None, model: str, written: Path | None
) -> Shown:
    """Return what was folded, what stayed and why, and what the check said.

    That a fold could not be checked is said first, with what would help.
    """
    counts = folds_said(report)
    lines = [f"{model}: {counts}"]
    if check is not None and check.verdict is Verdict.NOT_JUDGED:
        lines = [f"{model}: NOT CHECKED: {check.why}; {option_for(check.why)}", f"  {counts}"]
    lines += [f"  {line}" for line in fold_lines(report, check)]
    lines.append(f"  written: {written}" if written is not None else "  nothing written")
    return shown_lines(lines)


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
    lines += [f"warning: {one}" for one in (() if check is None else check.warnings)]
    return lines


def option_for(why: str) -> str:
    """Return which option may make a check possible that was not, by the reason why."""
    return next((option for words, option in _OPTIONS if words.search(why)), _OTHERWISE)


_OWN_INPUTS: Final = "judge it by your own with bnfold verify --inputs DATA"
_SIZES: Final = f"say sizes with --shape NAME=SIZES, or {_OWN_INPUTS}"
_MORE_TIME: Final = "give it more with --max-time SECONDS"
_OPTIONS: Final = (
    (re.compile(r"no numbers are drawn|not a tensor"), _OWN_INPUTS),
    (re.compile(r"no answer after"), _MORE_TIME),
    (re.compile(r"does not run"), _SIZES),
    (re.compile(r"\btime\b|\bbudget\b|\bseconds\b"), _MORE_TIME),
    (re.compile(r"\bsizes?\b|\bshapes?\b"), _SIZES),
)
"""What helps, by words of the reason; the first that fits."""

_OTHERWISE: Final = (
    f"{_OWN_INPUTS}, or prove it without a run: fold --certificate C.json, then"
    " verify --certificate C.json"
)


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
    if check.verdict is Verdict.NOT_JUDGED:
        return f"could not be judged: {check.why}"
    return f"{check.verdict}; {'; '.join(_evidence(check))}"


def _evidence(check: VerifyReport) -> Iterator[str]:
    """Say what showed it: the proof, the run, or both."""
    proof = check.proof
    if proof is not None and proof.passed:
        shown = f", {proof.shown} of {proof.channels} channels shown" if proof.channels else ""
        segments = counted(proof.windows, "segment")
        yield f"proved segment by segment in float64 ({segments}{shown})"
    if check.outputs:
        ratio = max(output.ratio for output in check.outputs)
        limit = max(output.limit for output in check.outputs)
        yield (
            f"run on {counted(len(check.cases), 'input')}: the largest difference is"
            f" {ratio:.2g} times the original's own rounding noise (limit {limit:.3g})"
        )
