"""What is being done, on a terminal; nothing in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bnfold.safe_text import visible


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Give a function that shows what is being done on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from bnfold.report.console import console_on_stderr, styled

    with console_on_stderr().status(styled("reading")) as status:
        yield lambda said: status.update(styled(said))


@contextmanager
def bar() -> Iterator[Callable[[str, float], None]]:
    """Give a function that shows what is being done, how far, and the time left.

    It takes words and the share that is done, and draws on stderr if that is a terminal.
    """
    if not sys.stderr.isatty():
        yield lambda _, __: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from bnfold.report.console import console_on_stderr

    said_last = TextColumn("{task.description}", markup=False)
    columns = (BarColumn(24), TimeRemainingColumn(), said_last)
    with Progress(*columns, console=console_on_stderr(), transient=True) as shown:
        task = shown.add_task("reading", total=1.0)
        yield lambda said, done: shown.update(task, description=visible(said), completed=done)
