"""What `bnfold.export` hands out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from bnfold.folding.api import Document
from bnfold.model.io import to_proto
from bnfold.records import ExportReport, Picture


@dataclass(frozen=True, slots=True)
class ExportResult:
    """An exported model and what is known of it.

    Attributes:
        model: The model as it was written.
        path: Where it was written.
        report: How it was made, what folded, and how far it is from torch.
        certificate: What the fold did, as data that `bnfold.verify` checks against the model
            before the fold; None when it was not asked for.
        pictures: The graph around every fold, before and after.
    """

    model: ir.Model
    path: Path
    report: ExportReport
    certificate: Document | None = None
    pictures: tuple[Picture, ...] = ()

    def to_proto(self) -> onnx.ModelProto:
        """Return the model as a protobuf message."""
        return to_proto(self.model)
