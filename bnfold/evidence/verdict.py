"""One verdict of two kinds of evidence: the proof decides first, the run asks what it cannot.

============  =============  ==============================================================
proof         run            verdict
============  =============  ==============================================================
passed        passed         passed
passed        failed         failed: the function is the same, the runtime is less accurate
passed        contradicts    failed: another function, in float64 too; the proof was mistaken
passed        not judged     passed: by the proof alone, which is said
failed        any            failed
not judged    any            the run's: it decides alone, within limits that know how much
                             was looked at
============  =============  ==============================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

import onnx_ir as ir

from bnfold.evidence.clock import NO_MEMORY
from bnfold.model.graphs import initializer_bytes
from bnfold.records import ProofReport, Verdict, VerifyReport

_RUN_PER_S: Final = 0.1e9
"""Bytes of a model. A run writes out both, and nudged ones for the noise, and opens all."""


def is_too_large_to_run(model: ir.Model, seconds: float) -> bool:
    """Return whether a run of a model would not come to an end in that time."""
    return initializer_bytes(model) / _RUN_PER_S > seconds


def without_a_run(proof: ProofReport, original: ir.Model) -> VerifyReport:
    """Return the report of a proof of models that there is no time to run."""
    size = initializer_bytes(original) / 1e9
    note = (
        f"judged by the proof alone: there is no time to run models of {size:.2g} GB"
        " (--max-time allows more)"
    )
    return by_proof(proof, note)


def within_memory(run: Callable[[], VerifyReport]) -> VerifyReport:
    """Return what a run gives; one that memory does not suffice for judges nothing.

    Args:
        run: Runs both models and judges.
    """
    try:
        return run()
    except MemoryError:
        return VerifyReport(Verdict.NOT_JUDGED, why=f"the run was given up: {NO_MEMORY}")


def one_verdict(proof: ProofReport, run: VerifyReport) -> VerifyReport:
    """Return the report of the run with the proof in it, and the verdict of both.

    Args:
        proof: The comparison of the graphs.
        run: What both models gave on the runtime; judged for accuracy alone if ``proof``
            passed.
    """
    report = replace(run, proof=proof, warnings=(*run.warnings, *_assumed(proof)))
    if proof.verdict is Verdict.FAILED:
        why = "; ".join(filter(None, (findings_of(proof), _seen_too(run))))
        return replace(report, verdict=Verdict.FAILED, why=why)
    if proof.verdict is Verdict.PASSED and run.verdict is Verdict.NOT_JUDGED:
        warning = f"judged by the proof alone: {run.why}"
        warnings = (*report.warnings, warning)
        return replace(report, verdict=Verdict.PASSED, why="", warnings=warnings)
    if run.contradicts:
        return report
    if run.verdict is Verdict.FAILED and proof.passed and not proof.certified:
        # Without a certificate, tensors are compared within the rounding of their type.
        why = f"{run.why} (segment by segment, no difference above rounding was found)"
        return replace(report, why=why)
    if proof.verdict is Verdict.NOT_JUDGED:
        return _by_the_run(report, proof)
    return report


def by_proof(proof: ProofReport, note: str) -> VerifyReport:
    """Return the report of a comparison in which nothing was run, and why not.

    Args:
        proof: The comparison of the graphs.
        note: Why nothing was run, as a warning.
    """
    warnings = (note, *_assumed(proof))
    return VerifyReport(proof.verdict, why=findings_of(proof), warnings=warnings, proof=proof)


def _assumed(proof: ProofReport) -> Iterator[str]:
    """Yield what the fold took for granted: whoever reads a verdict has to know."""
    return (f"this holds only if {assumption}" for assumption in proof.assumptions)


def _by_the_run(report: VerifyReport, proof: ProofReport) -> VerifyReport:
    """The run decides alone; a reader learns that it did, and why."""
    if report.verdict is Verdict.NOT_JUDGED:
        why = "; ".join(filter(None, (report.why, f"the proof is inconclusive: {proof.why}")))
        return replace(report, why=why)
    warning = f"judged by the run alone, the proof is inconclusive: {proof.why}"
    return replace(report, warnings=(*report.warnings, warning))


def _seen_too(run: VerifyReport) -> str:
    """Whether the run agrees with a proof that failed: it may have been blind."""
    if run.verdict is Verdict.FAILED:
        return run.why
    if run.verdict is Verdict.PASSED:
        return "the inputs that were run do not show it"
    return ""


def findings_of(proof: ProofReport) -> str:
    """Return the first finding in a sentence; why there is none where that is unknown."""
    if not proof.findings:
        return proof.why if proof.verdict is not Verdict.PASSED else ""
    first = proof.findings[0]
    node = f" at node {first.node!r}" if first.node else ""
    channel = "" if first.channel is None else f", channel {first.channel}"
    return f"the graphs part{node}, {first.where!r}{channel}: {first.why}"
