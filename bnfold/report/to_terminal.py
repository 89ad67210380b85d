"""Reports for a person at a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bnfold.records import FoldReport, Stay, Step

_PIPE_WIDTH: Final = 200


def print_sites(report: FoldReport, model: str) -> None:
    """Print a row for each map: the nodes it stands in, where it goes or what stops it."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    console.print(Text(model, style="bold"), soft_wrap=True)
    console.print(f"{len(report.steps)} maps would go, {len(report.stays)} would stay")
    table = Table()
    table.add_column("map", overflow="fold")
    table.add_column("answer", no_wrap=True)
    table.add_column("where to, or what stops it", overflow="fold")
    for step in report.steps:
        table.add_row(Text(_site(step)), Text("goes", style="green"), Text(_goes(step)))
    for stay in report.stays:
        table.add_row(Text(_site(stay)), Text("stays", style="yellow"), Text(_stays(stay)))
    console.print(table)
    for warning in report.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"))


def _site(entry: Step | Stay) -> str:
    return f"{entry.rule}: {' → '.join(entry.site)}"


def _goes(step: Step) -> str:
    left = f" (leaves {', '.join(step.left)})" if step.left else ""
    routes = [" → ".join(route) for route in step.routes]
    adjusted = f"\nadjusted: {', '.join(step.adjusted)}" if step.adjusted else ""
    return "\n".join([f"{step.move}{left}", *routes]) + adjusted


def _stays(stay: Stay) -> str:
    lines = []
    for refusal in stay.refusals:
        remedy = f" — {refusal.remedy}" if refusal.remedy else ""
        route = " → ".join((*refusal.path, f"✗ {refusal.node}"))
        lines.append(f"[{refusal.code}] {route}: {refusal.why}{remedy}")
    return "\n".join(lines)
