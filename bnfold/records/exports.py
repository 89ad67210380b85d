"""What an export made of a torch module."""

from __future__ import annotations

from dataclasses import dataclass

from bnfold.records.folds import FoldReport
from bnfold.records.verdicts import VerifyReport


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output of an exported model.

    Attributes:
        name: Its name.
        dtype: Its element type, in ONNX's words.
        shape: Its sizes: a number, the name of one that is open, or null.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """How a torch module became an ONNX model, and what was found of it.

    Attributes:
        module: Class of the module.
        exporter: Which of torch's exporters wrote it.
        torch: Version of torch.
        opset: Version of ONNX's operators.
        inputs: Inputs of the model.
        outputs: Outputs of the model.
        fold: What the fold did; null if nothing was to be folded. Its document holds the
            comparison of the folded model with the exported one.
        check: That comparison; null if there was none.
        verification: The model that was written, judged by what torch computes; null if it
            was not asked for. The original is the torch module, the folded model the file.
        warnings: What the user should know.
    """

    module: str
    exporter: str
    torch: str
    opset: int
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    fold: FoldReport | None = None
    check: VerifyReport | None = None
    verification: VerifyReport | None = None
    warnings: tuple[str, ...] = ()
