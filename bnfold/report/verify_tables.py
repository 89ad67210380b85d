"""The tables of a comparison of two models, for page and pull request alike."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bnfold.records import OutputCheck, OutputMetrics, ProofReport, VerifyReport
from bnfold.report import words
from bnfold.report.blocks import Cell, Entry, Table


def outputs_table(report: VerifyReport) -> Table:
    """Every output's difference, measured by the original's own rounding noise."""
    rows = [_output_row(one) for one in report.outputs]
    head = ("output", "#times its noise", "#limit", "#largest difference", "#noise", "answer")
    return Table("Difference of every output", head, tuple(rows))


def _output_row(one: OutputCheck) -> tuple[Entry, ...]:
    where = "" if one.channel is None else f", channel {one.channel}"
    return (
        f"{one.name}{where}",
        words.digits(one.ratio),
        f"{one.limit:g}",
        words.digits(one.max_abs),
        words.digits(one.noise_abs),
        Cell("passed", "good") if one.passed else Cell("failed", "bad"),
    )


def reference_table(report: VerifyReport) -> Table:
    """How far both models are from the original in float64."""
    rows = [
        (
            one.name,
            words.digits(errors.error_original),
            words.digits(errors.error_folded),
            f"{words.digits(errors.ratio)} ({_ends(errors.low, errors.high)})",
            f"{words.digits(errors.excess)} ({_ends(errors.excess_low, errors.excess_high)})",
            words.digits(errors.worst),
            f"{errors.limit:g}",
        )
        for one in report.metrics
        if (errors := one.reference) is not None
    ]
    head = (
        "output",
        "#error, original",
        "#error, folded",
        "#ratio",
        "#over what rounding explains",
        "#worst",
        "#limit",
    )
    note = "Root mean square against the original in float64; in brackets, 95 % intervals."
    return Table("Errors against float64", head, tuple(rows), note)


def _ends(low: float, high: float) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return "no interval"
    return f"{words.digits(low)} to {words.digits(high)}"


def metrics_table(report: VerifyReport) -> Table:
    """Plain figures of every output."""
    rows = [_metrics_row(one) for one in report.metrics]
    head = (
        "output",
        "#max abs",
        "#max relative",
        "#ULP",
        "#SNR, dB",
        "#1 − cosine",
        "#rtol = atol that passes",
        "#changed kinds",
    )
    return Table("Plain figures, folded against original", head, tuple(rows))


def _metrics_row(one: OutputMetrics) -> tuple[Entry, ...]:
    numbers = (one.max_abs, one.max_rel, one.max_ulp, one.snr_db, 1 - one.cosine)
    told = (words.digits(number) for number in (*numbers, one.tolerance))
    return (one.name, *told, str(one.changed))


def labels_table(report: VerifyReport) -> Table:
    """Accuracy before and after."""
    found = report.labels
    rows: tuple[tuple[Entry, ...], ...] = ()
    if found is not None:
        rows = (
            ("samples", str(found.samples)),
            ("accuracy of the original", f"{found.accuracy_original:.2%}"),
            ("accuracy of the folded model", f"{found.accuracy_folded:.2%}"),
            ("same answer", f"{found.agreement:.2%}"),
            ("right only before", str(found.only_original)),
            ("right only after", str(found.only_folded)),
            ("p of McNemar's exact test", words.digits(found.p_value)),
        )
    return Table("Accuracy on labelled samples", ("what", "#is"), rows)


def search_table(report: VerifyReport) -> Table:
    """What the search for the worst input found."""
    found = report.search
    rows: tuple[tuple[Entry, ...], ...] = ()
    if found is not None:
        rows = (
            ("inputs tried", str(found.tried)),
            ("times the noise, at first", words.digits(found.start)),
            (
                "the worst found",
                Cell(words.digits(found.worst), "good" if found.passed else "bad"),
            ),
            ("the same search on the rounded original", words.digits(found.control)),
            ("how many times that is allowed", f"{found.limit:g}"),
        )
    return Table("Search for the worst input", ("what", "#is"), rows)


def proof_table(proof: ProofReport) -> Table:
    """What was compared segment by segment."""
    rows: list[tuple[str, str | Cell]] = [
        ("answer", Cell(str(proof.verdict), words.VERDICT_TONE[proof.verdict])),
        ("certificate", _source(proof)),
        ("nodes that are the same, byte for byte", str(proof.same_nodes)),
        ("segments evaluated on both sides in float64", str(proof.windows)),
        ("numbers compared in them", str(proof.elements)),
        (
            "channels of new constants that were shown to matter",
            f"{proof.shown} of {proof.channels}",
        ),
        *(("not seen", one) for one in proof.unshown),
        ("of these, probed by every impulse", str(proof.impulses)),
        ("tensors derived anew from the original's", str(proof.tensors)),
        ("judged within rounding only", ", ".join(proof.untold) or "none"),
    ]
    kept = [(what, said) for what, said in rows if said not in ("0", "none")]
    return Table("Segment by segment", ("what", "is"), tuple(kept))


def _source(proof: ProofReport) -> str:
    """What told of which numbers the folded model was made."""
    if proof.refolded:
        return "without one: it is the fold that bnfold makes of the original"
    return "there was one" if proof.certified else "without one"


def findings_table(proof: ProofReport) -> Table:
    """What a proof found wrong."""
    rows = [
        (
            Cell(str(one.charge), "bad"),
            one.node or words.NOTHING,
            one.where + ("" if one.channel is None else f", channel {one.channel}"),
            one.why,
            one.fold or words.NOTHING,
        )
        for one in proof.findings
    ]
    head = ("charge", "node", "where", "why", "fold")
    return Table("What is wrong", head, tuple(rows))


def cases_table(cases: tuple[Mapping[str, tuple[int, ...]], ...]) -> Table:
    """Shapes of the inputs, each once."""
    told = [
        ", ".join(
            f"{name} {'×'.join(map(str, shape)) or 'one number'}" for name, shape in c.items()
        )
        for c in cases
    ]
    rows = tuple((one, str(told.count(one))) for one in dict.fromkeys(told))
    return Table("Inputs", ("shapes", "#sets"), rows)
