"""A benchmark in plain text for a terminal: a small table for each batch size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnfold.records import BenchReport, Case
from bnfold.report import bench_tables, words
from bnfold.report.blocks import Table, column_title, is_number_column, text_of
from bnfold.safe_text import Shown, shown_lines, visible


def bench_to_text(report: BenchReport) -> Shown:
    """Return the answer, the figures of every arm, what explains them, and warnings."""
    models = " and ".join(dict.fromkeys(arm.model for arm in report.arms))
    lines = [f"{models}: {words.bench_verdict(report)[0]}"]
    lines += [f"  {line}" for case in report.cases for line in _case(report, case)]
    lines += [f"  because: {reason}" for reason in report.why]
    lines += [f"  warning: {warning}" for warning in report.warnings]
    took = words.seconds(report.elapsed_s)
    cut = "" if report.complete else "; cut short"
    lines.append(f"  measured in {took} on {report.machine.processor}{_device(report)}{cut}")
    return shown_lines(lines)


def _device(report: BenchReport) -> str:
    return f", {report.machine.device}" if report.machine.device else ""


def _case(report: BenchReport, case: Case) -> Iterator[str]:
    name = words.main_arm(report)
    told = [
        words.headline(one, report.base, case) for one in case.comparisons if one.arm == name
    ]
    where = words.at_batch(case.batch)
    yield from told or [f"{name} was not measured {'at ' + where if where else ''}".rstrip()]
    table = bench_tables.case_table(report, case)
    yield from (f"  {line}" for line in aligned(table))
    yield f"  {table.note}"
    nulls = {arm.name for arm in report.arms if arm.null}
    yield from (f"  {words.null_said(one)}" for one in case.comparisons if one.arm in nulls)


def aligned(table: Table) -> list[str]:
    """Return the rows of a table in columns, numbers to the right, without its title."""
    head = [column_title(name) for name in table.head]
    rows = [head, *([visible(text_of(entry)) for entry in row] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(_cells(table.head, row, widths)).rstrip() for row in rows]


def _cells(head: Sequence[str], row: Sequence[str], widths: Sequence[int]) -> Iterator[str]:
    for name, entry, width in zip(head, row, widths, strict=True):
        yield entry.rjust(width) if is_number_column(name) else entry.ljust(width)
