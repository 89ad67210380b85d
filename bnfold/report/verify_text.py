"""A comparison of two models in plain text."""

from __future__ import annotations

from collections.abc import Iterator

from bnfold.records import OutputCheck, OutputMetrics, ProofReport, Verdict, VerifyReport
from bnfold.report.words import counted
from bnfold.safe_text import Shown, shown_lines

_WORDS = {
    Verdict.PASSED: "the same function",
    Verdict.FAILED: "NOT the same function",
    Verdict.NOT_JUDGED: "could not be judged",
}


def verify_to_text(report: VerifyReport, original: str, folded: str) -> Shown:
    """Return the verdict, its reason and the figures of every output."""
    lines = [f"{original} and {folded}: {_WORDS[report.verdict]} ({report.verdict})"]
    if report.why:
        lines += [f"  because: {reason}" for reason in report.why.split("; ")]
    lines += [f"  warning: {warning}" for warning in report.warnings]
    lines += [f"  {line}" for line in _lines(report)]
    return shown_lines(lines)


def _lines(report: VerifyReport) -> Iterator[str]:
    if report.settings:
        before, after = report.settings
        sets = counted(len(report.cases), "set")
        yield f"over {sets} of inputs; original: {before}; folded: {after}"
    metrics = {one.name: one for one in report.metrics}
    for check in report.outputs:
        yield from _output(check, metrics.get(check.name))
    if report.fell_back:
        yield f"in the runtime's own types, not in float64: {', '.join(report.fell_back)}"
    yield from _labels(report)
    if report.search is not None:
        found = report.search
        yield (
            f"search: {counted(found.tried, 'input')} tried; worst {found.worst:.3g} times the"
            f" noise (began at {found.start:.3g}; rounding alone reaches {found.control:.3g})"
        )
    if report.comparisons:
        what = "accuracy alone, the function is proved" if report.only_accuracy else "equality"
        yield (
            f"the run judged {what}: {counted(report.comparisons, 'comparison')}, limits made"
            f" for {report.false_alarms:g} false alarms"
        )
    if report.proof is not None:
        yield from _proof(report.proof)


def _output(check: OutputCheck, metrics: OutputMetrics | None) -> Iterator[str]:
    yield (
        f"{check.name}: {check.ratio:.3g} times the original's rounding noise"
        f" (limit {check.limit:.3g})"
    )
    if check.note:
        yield f"  {check.note}"
    if metrics is not None:
        yield from (f"  {line}" for line in _figures(metrics))


def _figures(one: OutputMetrics) -> Iterator[str]:
    errors = one.reference
    if errors is not None:
        yield (
            f"error against float64: original {errors.error_original:.3g}, folded"
            f" {errors.error_folded:.3g}, ratio {errors.ratio:.3g}"
            f" ({errors.low:.3g} to {errors.high:.3g} over {errors.samples} inputs)"
        )
        yield (
            f"error over what rounding explains: {errors.excess:.3g}"
            f" ({errors.excess_low:.3g} to {errors.excess_high:.3g}; limit {errors.limit:g})"
        )
    if one.changed and not one.max_abs:
        yield f"{one.changed} elements changed that cannot be subtracted"
        return
    yield (
        f"max abs {one.max_abs:.3g}, max relative {one.max_rel:.3g}, {one.max_ulp:.4g} ULP,"
        f" SNR {one.snr_db:.4g} dB, cosine {one.cosine:.9g}"
    )
    if one.changed:
        yield f"{one.changed} elements changed that cannot be subtracted"
    yield f"smallest rtol = atol that passes: {one.tolerance:.3g}"


def _labels(report: VerifyReport) -> Iterator[str]:
    labels = report.labels
    if labels is not None:
        yield (
            f"accuracy over {labels.samples} samples: {labels.accuracy_original:.4%} →"
            f" {labels.accuracy_folded:.4%}, agreement {labels.agreement:.4%};"
            f" {labels.only_original} lost, {labels.only_folded} won, McNemar"
            f" p = {labels.p_value:.3g}"
        )


def _source(proof: ProofReport) -> str:
    if proof.refolded:
        return "folded anew: it is the fold that bnfold makes"
    return "with certificate" if proof.certified else "without certificate"


def _proof(proof: ProofReport) -> Iterator[str]:
    yield (
        f"segment by segment ({_source(proof)}): {proof.verdict};"
        f" {counted(proof.same_nodes, 'node')} the same,"
        f" {counted(proof.windows, 'segment')} evaluated,"
        f" {counted(proof.elements, 'number')} compared"
    )
    if proof.channels:
        yield (
            f"  {proof.shown} of {proof.channels} channels of new constants were shown to"
            f" matter ({proof.share:.4g} of all): changed on purpose, they were noticed"
        )
    yield from (f"  not seen: {one}" for one in proof.unshown)
    if proof.certified or proof.refolded:
        tensors = counted(proof.tensors, "tensor")
        yield f"  {tensors} derived anew, each within half an ulp of its type"
    if proof.impulses:
        affine = counted(proof.impulses, "affine segment")
        yield f"  {affine} probed by every impulse"
    if proof.untold:
        yield (
            "  not derived, judged within rounding only (the certificate does not say what"
            f" they were made of): {', '.join(proof.untold)}"
        )
    if proof.why:
        yield f"  {proof.why}"
    for finding in proof.findings:
        channel = "" if finding.channel is None else f", channel {finding.channel}"
        node = f"node {finding.node}, " if finding.node else ""
        yield f"  [{finding.charge}] {node}{finding.where}{channel}: {finding.why}"
