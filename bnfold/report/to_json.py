"""Reports as JSON documents with a versioned schema; pages are made from these alone."""

from __future__ import annotations

import importlib
import json
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, cast

from bnfold.records import (
    BenchReport,
    ExportReport,
    FoldReport,
    InputSizes,
    Picture,
    VerifyReport,
)
from bnfold.report.documents import (
    BENCH_SCHEMA,
    EXPORT_SCHEMA,
    FOLD_SCHEMA,
    VERIFY_SCHEMA,
    BenchDocument,
    ExportDocument,
    FoldDocument,
    Made,
    Operators,
    VerifyDocument,
)
from bnfold.report.encoding import encode
from bnfold.safe_text import for_json

_NUMBERS: Final = re.compile(r"\[\s+(?:[-+.eE\d]+,\s+)*[-+.eE\d]+\s+\]")
"""A list of numbers over several lines: no text is like it, for none holds a newline."""


def fold_document(
    report: FoldReport,
    check: VerifyReport | None,
    pictures: Sequence[Picture] = (),
    model: str = "",
    sizes: Sequence[InputSizes] = (),
) -> dict[str, Any]:
    """Return a fold report, and its check if there was one, as a document.

    Args:
        report: What the fold did.
        check: What the check of it said.
        pictures: The graph around folds, before and after.
        model: The model, as the user named it.
        sizes: Which sizes its inputs have in a check.
    """
    document = _fold(report, check, pictures, model)
    return _encoded(replace(document, sizes=tuple(sizes)))


def verify_document(
    report: VerifyReport, original: str = "", folded: str = ""
) -> dict[str, Any]:
    """Return a comparison of two models as a document.

    Args:
        report: What was found.
        original: The original, as the user named it.
        folded: The folded model, in the same way.
    """
    return _encoded(
        VerifyDocument(VERIFY_SCHEMA, report.passed, report, _made(), original, folded)
    )


def bench_document(
    report: BenchReport,
    command: str = "",
) -> dict[str, Any]:
    """Return a benchmark, with every sample, as a document.

    Args:
        report: What was measured.
        command: The command that measures it again.
    """
    fold = None
    if report.fold is not None:
        fold = _fold(report.fold, None, report.pictures, report.base.model)
    return _encoded(
        BenchDocument(BENCH_SCHEMA, _made(), command, report.complete, report, fold)
    )


def export_document(
    report: ExportReport, pictures: Sequence[Picture] = (), source: str = "", model: str = ""
) -> dict[str, Any]:
    """Return an export as a document.

    Args:
        report: How it was made, and what was found of it.
        pictures: The graph around folds, before and after.
        source: The module, as the user named it.
        model: Where the model was written.
    """
    fold = None
    if report.fold is not None:
        fold = _fold(report.fold, report.check, pictures, source)
    return _encoded(ExportDocument(EXPORT_SCHEMA, _made(), source, model, report, fold))


def fold_to_json(
    report: FoldReport,
    check: VerifyReport | None,
    pictures: Sequence[Picture] = (),
    model: str = "",
    sizes: Sequence[InputSizes] = (),
) -> str:
    """Return a fold report, and its check if there was one, as indented JSON."""
    return to_json(fold_document(report, check, pictures, model, sizes))


def verify_to_json(report: VerifyReport, original: str = "", folded: str = "") -> str:
    """Return a comparison of two models as indented JSON."""
    return to_json(verify_document(report, original, folded))


def bench_to_json(
    report: BenchReport,
    command: str = "",
) -> str:
    """Return a benchmark, with every sample, as indented JSON."""
    return to_json(bench_document(report, command))


def to_json(document: Mapping[str, Any]) -> str:
    """Return a document as indented text, a list of numbers in one line.

    What cannot be seen is spelled as JSON allows, so that the text may go to a terminal; read
    back, every name is exactly what it was.
    """
    text = for_json(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
    return _NUMBERS.sub(lambda found: " ".join(found.group().split()), text)


def _fold(
    report: FoldReport, check: VerifyReport | None, pictures: Sequence[Picture], model: str
) -> FoldDocument:
    return FoldDocument(
        schema=FOLD_SCHEMA,
        folded=report.steps,
        normalisations=report.normalisations,
        stayed=report.stays,
        operators=Operators(report.counts_before, report.counts_after),
        cloned_bytes=report.cloned_bytes,
        warnings=report.warnings,
        check=check,
        made=_made(),
        model=model,
        pictures=tuple(pictures),
    )


def _encoded(document: object) -> dict[str, Any]:
    return cast("dict[str, Any]", encode(document))


def _made() -> Made:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # An import statement of the package would make everything it offers an import of ours.
    version = importlib.import_module("bnfold").__version__
    return Made(version, platform.python_version(), now)
