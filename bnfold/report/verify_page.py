"""The page of a comparison of two models, and the part of a fold's page that is one."""

from __future__ import annotations

from bnfold.records import ProofReport, Verdict, VerifyReport
from bnfold.report import verify_plots, verify_tables, words
from bnfold.report.blocks import (
    Block,
    Bullets,
    Grid,
    Heading,
    Page,
    Section,
    Tile,
    folded_away,
    shortened,
    without_empty,
)
from bnfold.report.documents import VerifyDocument


def verify_page(document: VerifyDocument) -> Page:
    """Lay out a comparison."""
    report = document.report
    original, folded = (
        document.original or "the original",
        document.folded or "the folded model",
    )
    answer = words.VERDICT[report.verdict]
    sections = (
        Section("outputs", "How far apart are the outputs?", check_blocks_run(report)),
        Section("proof", "Are the graphs the same function?", proof_blocks(report.proof)),
    )
    made = document.made
    when = made.date.replace("T", " ").replace("+00:00", " UTC")
    return Page(
        title=f"{answer}: {original} and {folded}",
        what="Comparison of two models",
        about=f"{folded} against {original}",
        answer=answer,
        tone=words.VERDICT_TONE[report.verdict],
        sentences=tuple(_sentences(report)),
        tiles=tuple(_tiles(report)),
        why=(),
        warnings=report.warnings,
        sections=tuple(one for one in sections if one.blocks),
        measured=verify_measured(report),
        made=f"bnfold {made.bnfold}, Python {made.python}, {when}",
    )


def _sentences(report: VerifyReport) -> list[str]:
    said = [words.sentence(reason) for reason in report.why.split("; ") if reason]
    if report.verdict is not Verdict.NOT_JUDGED:
        said.insert(0, words.sentence(f"Both models: {words.check_said(report)}"))
    if report.settings:
        before, after = report.settings
        said.append(f"How the runtime was to optimise: original: {before}; folded: {after}.")
    if report.fell_back:
        kinds = ", ".join(report.fell_back)
        said.append(f"In the runtime's own types, not in float64: {kinds}.")
    return said


def _tiles(report: VerifyReport) -> list[Tile]:
    tiles = []
    worst = words.worst_output(report.outputs)
    if worst is not None:
        note = f"times its rounding noise; limit {worst.limit:g}"
        tiles.append(Tile("difference", words.digits(worst.ratio), note))
    errors = [one.reference for one in report.metrics if one.reference is not None]
    if errors:
        furthest = max(errors, key=lambda one: one.ratio)
        note = "folded over original, against float64"
        tiles.append(Tile("error", f"{words.digits(furthest.ratio)}×", note))
    if report.labels is not None:
        tiles.append(
            Tile("same answer", f"{report.labels.agreement:.2%}", "of labelled samples")
        )
    if report.proof is not None:
        same = words.counted(report.proof.same_nodes, "node")
        note = f"{same} the same, {words.counted(report.proof.windows, 'segment')} evaluated"
        tiles.append(Tile("segment by segment", str(report.proof.verdict), note))
    return tiles


def check_blocks(report: VerifyReport) -> tuple[Block, ...]:
    """Everything that was found, run and proof."""
    why = tuple(words.sentence(one) for one in report.why.split("; ") if one)
    proof = proof_blocks(report.proof)
    heading = (Heading("Segment by segment"),) if proof else ()
    reasons = without_empty((Bullets(why),))
    return (*reasons, *check_blocks_run(report), *heading, *proof)


def check_blocks_run(report: VerifyReport) -> tuple[Block, ...]:
    """What running both models showed."""
    plots = Grid(
        without_empty(
            (
                verify_plots.shares(report.outputs, "shares"),
                *verify_plots.channels(report.metrics),
            )
        )
    )
    return without_empty(
        (
            plots,
            shortened(verify_tables.outputs_table(report)),
            shortened(verify_tables.reference_table(report)),
            shortened(verify_tables.metrics_table(report)),
            verify_tables.labels_table(report),
            verify_tables.search_table(report),
            folded_away(verify_tables.cases_table(report.cases)),
        )
    )


def proof_blocks(proof: ProofReport | None) -> tuple[Block, ...]:
    """What comparing the graphs showed."""
    if proof is None:
        return ()
    assumed = tuple(f"Holds only if {one}." for one in proof.assumptions)
    why = (words.sentence(proof.why),) if proof.why else ()
    return without_empty(
        (
            Bullets((*why, *assumed)),
            shortened(verify_tables.findings_table(proof)),
            verify_tables.proof_table(proof),
        )
    )


def verify_measured(report: VerifyReport) -> tuple[str, ...]:
    """How it was judged, in a few sentences."""
    run = (
        "Both models run on the same inputs. The difference is measured by what half-ulp"
        " changes of the original's own numbers do to its outputs: no fixed tolerance, which"
        " would convict good folds and acquit bad ones.",
        "Where a float64 reference can run, the folded model's error against it must be"
        " explained by the original's own error and that noise.",
    )
    proof = (
        "Segment by segment, what differs between the graphs is evaluated on both sides in"
        " float64 on drawn numbers; no model is run as a whole for that.",
    )
    return (*(run if report.outputs else ()), *(proof if report.proof is not None else ()))
