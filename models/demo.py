"""Fold two networks trained on handwritten digits, and show that nothing else changed.

``make demo`` runs this; it needs neither torch nor scikit-learn. For each network it folds
every BatchNormalization, runs the original and the folded file on the real test images, prints
what moved where, and ends with exit code 1 if any check fails. Folded models and a report are
written to ``build/demo/``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.table import Table

from bnfold.errors import BnfoldError
from models.examining import NETS, OUT, Outcome, examine, load_digits
from models.reporting import (
    check_remark,
    command_line,
    comparison_rows,
    move_rows,
    runtime_remark,
    shown,
    timing_rows,
    write_report,
)

_WIDTH: Final = 100
_FIGURES: Final = ("original", "folded", "ratio", "95 % interval")
_MOVE_HEADINGS: Final = ("layer that disappeared", "moved", "into", "weights rewritten")
_INTRODUCTION: Final = """\
Two networks were trained to read handwritten digits (models/train.py). Both have BatchNorm
layers, which at inference only multiply each channel by a constant and add another. bnfold
moves those constants into the weights of the layer next to them: the BatchNorm layers
disappear, and the network computes the same function. Here is each network before and after,
on 500 real images that it was not trained on.
"""


def table(title: str, headings: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Table:
    """Return a table whose first column is text and whose figures stand on the right."""
    made = Table(title=title, title_justify="left")
    for heading in headings:
        right = heading in _FIGURES
        made.add_column(heading, justify="right" if right else "left")
    for row in rows:
        made.add_row(*row)
    return made


def show(outcome: Outcome, console: Console) -> None:
    """Print everything about one network."""
    console.rule(f"[bold]{outcome.original.name}[/bold]: {NETS[outcome.net]}", align="left")
    console.print(f"[bold]$ {command_line(outcome)}[/bold]\n")
    console.print(table("What moved where", _MOVE_HEADINGS, move_rows(outcome)))
    rows = comparison_rows(outcome)
    console.print(table("Before and after", ("", "original", "folded"), rows))
    console.print(check_remark(outcome.fold.check) + "\n")
    title = "Time divided by that of the folded model, on one CPU thread"
    console.print(table(title, ("", "ratio", "95 % interval", " "), timing_rows(outcome)))
    console.print(runtime_remark(outcome) + "\n")
    for what, holds in outcome.checks.items():
        console.print("[green]✓[/green]" if holds else "[red]✗ NOT TRUE:[/red]", what)
    console.print()


def run(console: Console) -> bool:
    """Examine and show both networks, write the report; return whether every check holds."""
    OUT.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    outcomes = []
    for net in NETS:
        outcomes.append(examine(net, digits))
        show(outcomes[-1], console)
    write_report(outcomes)
    console.print(f"Folded models and report: {shown(OUT)}/")
    return all(all(outcome.checks.values()) for outcome in outcomes)


def main() -> int:
    """Return 0 if everything that must hold does, else 1."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH)
    console.print(_INTRODUCTION)
    try:
        sound = run(console)
    except BnfoldError as error:
        console.print(f"{type(error).__name__}: {error}", markup=False, style="red")
        return 1
    console.print("[green]All checks hold.[/green]" if sound else "[red]A check failed.[/red]")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
