"""bnfold: fold affine maps into neighbouring weights of ONNX graphs, with evidence."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bnfold import errors, passes
    from bnfold.benchmarked import benchmark
    from bnfold.checked import fold
    from bnfold.exporting.from_torch import export
    from bnfold.exporting.result import ExportResult
    from bnfold.folding.api import FoldResult
    from bnfold.records import BenchReport, ExportReport, FoldReport, Refusal, VerifyReport
    from bnfold.verified import verify

__version__ = "0.1.0"

__all__ = [
    "BenchReport",
    "ExportReport",
    "ExportResult",
    "FoldReport",
    "FoldResult",
    "Refusal",
    "VerifyReport",
    "benchmark",
    "errors",
    "export",
    "fold",
    "passes",
    "verify",
]

_HOMES = {
    "benchmark": "bnfold.benchmarked",
    "BenchReport": "bnfold.records",
    "export": "bnfold.exporting.from_torch",
    "ExportReport": "bnfold.records",
    "ExportResult": "bnfold.exporting.result",
    "fold": "bnfold.checked",
    "FoldResult": "bnfold.folding.api",
    "FoldReport": "bnfold.records",
    "Refusal": "bnfold.records",
    "VerifyReport": "bnfold.records",
    "verify": "bnfold.verified",
}


def __getattr__(name: str) -> object:
    """Load public names on first use: ``import bnfold`` alone loads no heavy package."""
    if name in ("errors", "passes"):
        return importlib.import_module(f"bnfold.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    message = f"module 'bnfold' has no attribute {name!r}"
    raise AttributeError(message)
