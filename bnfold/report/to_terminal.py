"""Reports for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.table import Table

from bnfold.records import FoldReport, InputSizes, Normalisation, Stay, Step
from bnfold.report.console import SafeConsole, console_on_stdout, styled
from bnfold.report.sizes_text import sizes_said
from bnfold.report.words import counted, first_lines, listed
from bnfold.safe_text import Shown, shown_lines

_MOST_ROWS: Final = 500
"""Of maps that go, and of maps that stay: nobody reads 10⁵ rows, and they take minutes."""

_NOTHING: Final = (
    "nothing to fold: no affine map to be moved, no operators that are cheaper as one"
)


def print_sites(report: FoldReport, model: str, sizes: Sequence[InputSizes] = ()) -> None:
    """Print a row for each map: the nodes it stands in, where it goes or what stops it.

    Args:
        report: What a fold would do.
        model: The model, as the user named it.
        sizes: Which sizes its inputs have in a check.
    """
    console = console_on_stdout()
    console.print(styled(model, "bold"), soft_wrap=True)
    if report.steps or report.stays:
        goes = counted(len(report.steps), "map")
        console.print(f"{goes} would go, {len(report.stays)} would stay")
        _print_maps(console, report)
    else:
        console.print(_NOTHING)
    if report.normalisations:
        console.print(_normalisations(report.normalisations[:_MOST_ROWS]))
    for line in sizes_said(sizes):
        console.print(line, soft_wrap=True)
    for warning in report.warnings:
        console.print(styled(f"warning: {warning}", "yellow"))


def _print_maps(console: SafeConsole, report: FoldReport) -> None:
    table = Table()
    table.add_column("map", overflow="fold")
    table.add_column("answer", no_wrap=True)
    table.add_column("where to, or what stops it", overflow="fold")
    stays, steps = report.stays[:_MOST_ROWS], report.steps[:_MOST_ROWS]
    for step in steps:
        table.add_row(_site(step), styled("goes", "green"), _goes(step))
    for stay in stays:
        table.add_row(_site(stay), styled("stays", "yellow"), _stays(stay))
    console.print(table)
    more = len(report.steps) - len(steps), len(report.stays) - len(stays)
    if any(more):
        said = f"{more[0]} more that go, {more[1]} that stay"
        console.print(f"not shown: {said}; --json lists all")


def _normalisations(found: tuple[Normalisation, ...]) -> Table:
    """Return a row for each normalisation: over what, by which statistics, what can fold."""
    table = Table()
    table.add_column("normalisation", overflow="fold")
    table.add_column("over", overflow="fold")
    table.add_column("mean and variance", overflow="fold")
    table.add_column("what can and cannot be folded", overflow="fold")
    for norm in found:
        statistics = "constants" if norm.constant_statistics else "computed from the data"
        folds = shown_lines(filter(None, (norm.can_fold, norm.cannot_fold)))
        table.add_row(f"{norm.kind}: {norm.node}", _over(norm), statistics, folds)
    return table


def _over(norm: Normalisation) -> str:
    axes = ", ".join(str(axis) for axis in norm.axes) or "unknown"
    shape = "?" if norm.shape is None else ", ".join(str(dim or "?") for dim in norm.shape)
    groups = "" if norm.groups is None else f", axis 1 in {norm.groups} groups"
    return f"axes {axes} of [{shape}]{groups}"


def _site(entry: Step | Stay) -> str:
    return f"{entry.rule}: {listed(entry.site, ' → ')}"


def _goes(step: Step) -> Shown:
    left = f" (leaves {listed(step.left)})" if step.left else ""
    routes = first_lines([listed(route, " → ") for route in step.routes])
    adjusted = [f"adjusted: {listed(step.adjusted)}"] if step.adjusted else []
    return shown_lines([f"{step.move}{left}", *routes, *adjusted])


def _stays(stay: Stay) -> Shown:
    lines = []
    for refusal in stay.refusals:
        remedy = f" — {refusal.remedy}" if refusal.remedy else ""
        route = listed((*refusal.path, f"✗ {refusal.node}"), " → ")
        lines.append(f"[{refusal.code}] {route}: {refusal.why}{remedy}")
    return shown_lines(first_lines(lines))
