"""What pages, Markdown and text say of an export."""

from __future__ import annotations

from bnfold.records import ExportReport, Port, VerifyReport
from bnfold.report import fold_tables, words
from bnfold.report.blocks import Table
from bnfold.report.documents import ExportDocument


def export_answer(report: ExportReport) -> tuple[str, str]:
    """Return the verdict in a few words, and its tone."""
    found = report.verification
    if found is None:
        return "exported, not verified", "quiet"
    return f"exported, {words.VERDICT[found.verdict]}", words.VERDICT_TONE[found.verdict]


def export_said(document: ExportDocument) -> list[str]:
    """Return how it was made, what folded, and how far it is from torch."""
    report = document.report
    said = [
        f"{report.module} by torch {report.torch}, {report.exporter} exporter,"
        f" opset {report.opset}"
    ]
    if document.fold is not None:
        said.append(fold_tables.fold_said(document.fold.report))
    said.append(f"Against torch: {verification_said(report.verification)}")
    return said


def verification_said(found: VerifyReport | None) -> str:
    """Return how far the model is from the torch module, in a sentence."""
    if found is None:
        return "not verified"
    if not found.outputs:
        return f"{found.verdict}: {found.why}"
    worst = max(found.outputs, key=lambda one: (not one.passed, one.ratio))
    measure = "the module's own error and its rounding" if found.referenced else "rounding"
    said = (
        f"{found.verdict}; at most {worst.ratio:.2g} times what {measure} explain"
        f" (limit {worst.limit:g}), over {len(found.cases)} sets of inputs"
    )
    errors = [one.reference for one in found.metrics if one.reference is not None]
    if errors:
        furthest = max(errors, key=lambda one: one.ratio)
        said += (
            f"; error against float64: torch {furthest.error_original:.2e}, the model"
            f" {furthest.error_folded:.2e}"
        )
    return f"{said}: {found.why}" if found.why else said


def ports_table(report: ExportReport) -> Table:
    """Return inputs and outputs with types and sizes."""
    rows = [("input", *_row(port)) for port in report.inputs]
    rows += [("output", *_row(port)) for port in report.outputs]
    return Table("Interface", ("", "name", "type", "shape"), tuple(rows))


def _row(port: Port) -> tuple[str, str, str]:
    sizes = "×".join("?" if size is None else str(size) for size in port.shape)
    return port.name, port.dtype.lower(), sizes or "scalar"
