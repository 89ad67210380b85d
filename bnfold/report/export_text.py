"""An export in a few lines of plain text."""

from __future__ import annotations

from pathlib import Path

from bnfold.records import ExportReport, Port
from bnfold.report.export_tables import verification_said
from bnfold.report.to_text import fold_lines
from bnfold.report.words import folds_said
from bnfold.safe_text import Shown, shown_lines


def export_to_text(report: ExportReport, source: str, written: Path) -> Shown:
    """Return how it was made, what folded and what stayed, and how far it is from torch."""
    lines = [
        f"{source}: {report.module} → ONNX opset {report.opset}"
        f" (torch {report.torch}, {report.exporter})",
        *(f"  input  {_told(port)}" for port in report.inputs),
        *(f"  output {_told(port)}" for port in report.outputs),
    ]
    if report.fold is None:
        lines.append("  not folded")
    else:
        lines.append(f"  {folds_said(report.fold)}")
        lines += [f"  {line}" for line in fold_lines(report.fold, report.check)]
    lines.append(f"  against torch: {verification_said(report.verification)}")
    found = report.verification
    warnings = (*report.warnings, *(() if found is None else found.warnings))
    lines += [f"  warning: {warning}" for warning in warnings]
    return shown_lines([*lines, f"  written: {written}"])


def _told(port: Port) -> str:
    sizes = "×".join("?" if size is None else str(size) for size in port.shape)
    return f"{port.name}: {port.dtype.lower()}[{sizes}]"
