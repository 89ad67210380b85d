"""The JSON documents of bnfold, as types: what they hold is written down here alone.

A document is one of these values, encoded by `encoding`. A field marked ``flat`` lends its
keys to the document itself instead of standing under its own name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bnfold.errors import UsageError
from bnfold.records import (
    BenchReport,
    ExportReport,
    FoldReport,
    InputSizes,
    Normalisation,
    Picture,
    Stay,
    Step,
    VerifyReport,
)

FOLD_SCHEMA: Final = "bnfold/fold-report/2"
VERIFY_SCHEMA: Final = "bnfold/verify-report/1"
BENCH_SCHEMA: Final = "bnfold/bench-report/1"
EXPORT_SCHEMA: Final = "bnfold/export-report/1"


@dataclass(frozen=True, slots=True)
class Made:
    """When a document was made, and by what.

    Attributes:
        bnfold: Version of bnfold.
        python: Version of Python.
        date: Date and time in UTC, as ISO 8601 writes it.
    """

    bnfold: str
    python: str
    date: str


@dataclass(frozen=True, slots=True)
class Operators:
    """How many nodes of every operator a model has.

    Attributes:
        before: In the original, by operator.
        after: In the folded model.
    """

    before: Mapping[str, int]
    after: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FoldDocument:
    """What `bnfold fold` and `bnfold inspect` did, or would do.

    Attributes:
        schema: Name and version of this shape.
        made: When it was made, and by what.
        model: The model, as the user named it; empty if it was in memory.
        folded: Every map that went, and where to.
        normalisations: Every normalisation of the model, as it was before.
        stayed: Every map that stayed, and what stopped it.
        operators: Nodes by operator, before and after.
        cloned_bytes: Growth of the model by weights that were written anew, in bytes.
        warnings: What the user should know.
        check: What the check of the result said; null if there was none.
        pictures: The graph around folds, before and after.
        sizes: Which sizes the inputs have in a check, as `bnfold inspect` tells.
    """

    schema: str
    folded: tuple[Step, ...]
    normalisations: tuple[Normalisation, ...]
    stayed: tuple[Stay, ...]
    operators: Operators
    cloned_bytes: int
    warnings: tuple[str, ...]
    check: VerifyReport | None
    made: Made
    model: str = ""
    pictures: tuple[Picture, ...] = ()
    sizes: tuple[InputSizes, ...] = ()

    @property
    def report(self) -> FoldReport:
        """The same as a record."""
        return FoldReport(
            self.folded,
            self.stayed,
            self.operators.before,
            self.operators.after,
            self.warnings,
            self.normalisations,
        )


@dataclass(frozen=True, slots=True)
class VerifyDocument:
    """What `bnfold verify` found.

    Attributes:
        schema: Name and version of this shape.
        passed: Whether both were judged and found to compute the same function.
        report: Everything that was found.
        made: When it was made, and by what.
        original: The original, as the user named it; empty if it was in memory.
        folded: The folded model, in the same way.
    """

    schema: str
    passed: bool
    report: VerifyReport = field(metadata={"flat": True})
    made: Made
    original: str = ""
    folded: str = ""


@dataclass(frozen=True, slots=True)
class BenchDocument:
    """What `bnfold bench` measured, with every sample.

    Attributes:
        schema: Name and version of this shape.
        made: When it was made, and by what.
        command: The command that measures it again; empty if it was not started by one.
        complete: Whether nothing was cut short by the user or a failure.
        report: Everything that was measured.
        fold: What the fold did, where the folded model was made for this.
    """

    schema: str
    made: Made
    command: str
    complete: bool
    report: BenchReport = field(metadata={"flat": True, "without": ("fold", "pictures")})
    fold: FoldDocument | None = None


@dataclass(frozen=True, slots=True)
class ExportDocument:
    """What `bnfold export` did, and what was found of the result.

    Attributes:
        schema: Name and version of this shape.
        made: When it was made, and by what.
        source: The module, as the user named it; empty if it was in memory.
        model: Where the model was written.
        report: How it was made and verified.
        fold: What the fold did, with the comparison of the folded model with the exported
            one; null if nothing was to be folded.
    """

    schema: str
    made: Made
    source: str
    model: str
    report: ExportReport = field(metadata={"flat": True, "without": ("fold", "check")})
    fold: FoldDocument | None = None


Document = FoldDocument | VerifyDocument | BenchDocument | ExportDocument
"""Any of them."""


def kind_of(document: Mapping[str, Any]) -> type[Document]:
    """Return the type of a document by the schema that it names.

    Raises:
        UsageError: If it names none of ours.
    """
    name = document.get("schema")
    if not isinstance(name, str) or name not in _KINDS:
        raise UsageError(
            "cannot show this document",
            why=f"its schema is {name!r}",
            remedy=f"give one of {', '.join(_KINDS)}",
        )
    return _KINDS[name]


_KINDS: Final[Mapping[str, type[Document]]] = {
    FOLD_SCHEMA: FoldDocument,
    VERIFY_SCHEMA: VerifyDocument,
    BENCH_SCHEMA: BenchDocument,
    EXPORT_SCHEMA: ExportDocument,
}
