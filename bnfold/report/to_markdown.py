"""Reports as Markdown for pull requests and logs: the verdict first, one table, the reasons.

All text is made visible first, and escaped where it is put in: names can hold anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bnfold.records import Verdict, VerifyReport
from bnfold.report import bench_tables, export_tables, fold_tables, verify_tables, words
from bnfold.report.blocks import Table, column_title, is_number_column, shortened, text_of
from bnfold.report.documents import (
    BenchDocument,
    ExportDocument,
    FoldDocument,
    VerifyDocument,
    kind_of,
)
from bnfold.report.encoding import decode
from bnfold.safe_text import Shown, for_markdown, visible_document

_MARKS: Final = {"good": "✅", "bad": "❌", "warn": "⚠️", "quiet": "➖"}


def to_markdown(document: Mapping[str, Any]) -> Shown:
    """Return a report in short, whatever its kind.

    Args:
        document: A document of `to_json`, perhaps read from a file.

    Raises:
        UsageError: If it is none.
    """
    kind = kind_of(document)
    if kind is BenchDocument:
        return bench_to_markdown(document)
    if kind is ExportDocument:
        return export_to_markdown(document)
    return fold_to_markdown(document) if kind is FoldDocument else verify_to_markdown(document)


def bench_to_markdown(document: Mapping[str, Any]) -> Shown:
    """Return a benchmark in short.

    Args:
        document: As `bench_document` makes it.
    """
    read = decode(BenchDocument, visible_document(document))
    report = read.report
    answer, tone = words.bench_verdict(report)
    said = [
        words.sentence(words.headline(one, report.base, case))
        for case, one in words.main_comparisons(report)
    ]
    lines = [
        _verdict(answer, tone, ""),
        *_paragraphs(said),
        *_table(bench_tables.summary_table(report)),
        *_bullets(report.why),
        *_warnings(report.warnings),
    ]
    tables = [bench_tables.case_table(report, case) for case in report.cases]
    lines += _details("All arms", [line for one in tables for line in _table(one)])
    lines += _details("What ran", _table(bench_tables.graphs_table(report)))
    lines += _details("Getting going", _table(bench_tables.starts_table(report)))
    where = _table(bench_tables.machine_table(report))
    lines += _details("Where and how", [*where, *_table(bench_tables.settings_table(report))])
    if read.fold is not None:
        lines += ["", words.sentence(fold_tables.fold_said(read.fold.report))]
    return _joined(lines)


def fold_to_markdown(document: Mapping[str, Any]) -> Shown:
    """Return a fold in short.

    Args:
        document: As `fold_document` makes it.
    """
    read = decode(FoldDocument, visible_document(document))
    report, check = read.report, read.check
    tone = "quiet" if check is None else words.VERDICT_TONE[check.verdict]
    lines = [
        _verdict(fold_tables.fold_said(report), tone, read.model),
        *_paragraphs([words.sentence(f"Check: {words.check_said(check)}")]),
        *_table(fold_tables.operators_table(report)),
        *_warnings((*read.warnings, *(() if check is None else check.warnings))),
    ]
    lines += _details("What stays, and why", _table(fold_tables.reasons_table(report)))
    lines += _details("Every fold", _table(shortened(fold_tables.steps_table(report.steps))))
    if check is not None:
        lines += _details("The check", _check_lines(check))
    return _joined(lines)


def export_to_markdown(document: Mapping[str, Any]) -> Shown:
    """Return an export in short.

    Args:
        document: As `export_document` makes it.
    """
    read = decode(ExportDocument, visible_document(document))
    report, found = read.report, read.report.verification
    answer, tone = export_tables.export_answer(report)
    said = [words.sentence(one) for one in export_tables.export_said(read)]
    warnings = (*report.warnings, *(() if found is None else found.warnings))
    lines = [
        _verdict(answer, tone, read.source),
        *_paragraphs(said),
        *_table(export_tables.ports_table(report)),
        *_warnings(warnings),
    ]
    if read.fold is not None:
        fold = read.fold.report
        lines += _table(fold_tables.operators_table(fold))
        lines += _details("What stays, and why", _table(fold_tables.reasons_table(fold)))
    if found is not None:
        lines += _details("The error, against torch", _check_lines(found))
    return _joined(lines)


def verify_to_markdown(document: Mapping[str, Any]) -> Shown:
    """Return a comparison of two models in short.

    Args:
        document: As `verify_document` makes it.
    """
    read = decode(VerifyDocument, visible_document(document))
    report = read.report
    names = " and ".join(one for one in (read.original, read.folded) if one)
    said = [words.sentence(one) for one in report.why.split("; ") if one]
    if report.verdict is not Verdict.NOT_JUDGED:
        said.insert(0, words.sentence(f"Both models: {words.check_said(report)}"))
    lines = [
        _verdict(words.VERDICT[report.verdict], words.VERDICT_TONE[report.verdict], names),
        *_paragraphs(said),
        *_table(shortened(verify_tables.outputs_table(report))),
        *_warnings(report.warnings),
    ]
    lines += _details("More figures", _check_lines(report)[1:])
    return _joined(lines)


def _check_lines(report: VerifyReport) -> list[str]:
    tables = [
        verify_tables.outputs_table(report),
        verify_tables.reference_table(report),
        verify_tables.metrics_table(report),
        verify_tables.labels_table(report),
        verify_tables.search_table(report),
    ]
    if report.proof is not None:
        tables.append(verify_tables.findings_table(report.proof))
        tables.append(verify_tables.proof_table(report.proof))
    return [line for one in tables for line in _table(shortened(one))]


def _verdict(said: str, tone: str, about: str) -> str:
    named = f"{for_markdown(about)}: " if about else ""
    return f"**{_MARKS[tone]} {named}{for_markdown(said)}**"


def _paragraphs(sentences: Sequence[str]) -> list[str]:
    return [line for one in sentences for line in ("", for_markdown(one))]


def _bullets(items: Iterable[str]) -> list[str]:
    told = [f"- {for_markdown(one)}" for one in items]
    return ["", *told] if told else []


def _warnings(found: Iterable[str]) -> list[str]:
    told = [f"> {_MARKS['warn']} {for_markdown(one)}" for one in found]
    return ["", *"\n>\n".join(told).split("\n")] if told else []


def _table(table: Table) -> list[str]:
    """Return a table under its title; nothing for one without rows."""
    if not table.rows:
        return []
    head = " | ".join(for_markdown(column_title(name)) for name in table.head)
    rule = " | ".join("---:" if is_number_column(name) else "---" for name in table.head)
    rows = [f"| {' | '.join(for_markdown(text_of(e)) for e in row)} |" for row in table.rows]
    note = ["", for_markdown(table.note)] if table.note else []
    title = f"**{for_markdown(table.title)}**"
    return ["", title, "", f"| {head} |", f"| {rule} |", *rows, *note]


def _details(summary: str, lines: Sequence[str]) -> list[str]:
    """Return lines behind a click; GitHub reads them as Markdown behind an empty line only."""
    if not lines:
        return []
    opened = lines if lines[0] == "" else ["", *lines]
    return ["", "<details>", f"<summary>{summary}</summary>", *opened, "", "</details>"]


def _joined(lines: Sequence[str]) -> Shown:
    """Put lines together; all text in them is escaped, and a row that is cut is no row."""
    return Shown("\n".join(lines).strip() + "\n")
