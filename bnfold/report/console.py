"""Rich's console for text that others wrote: no markup in it, and nothing that cannot be seen.

Whatever is given as plain text is made visible, in tables too; only what `styled` and
`shown_lines` made is shown as it is. This file alone makes a rich `Text`.
"""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.style import Style
from rich.text import Text

from bnfold.safe_text import for_terminal

_PIPE_WIDTH: Final = 200


class SafeConsole(Console):
    """A console whose plain text is safe; no brackets, emoji codes or numbers are special."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **settings)

    def render_str(self, text: str, *, style: str | Style = "", **_: Any) -> Text:
        """Return what rich shows of plain text; all of it comes here."""
        return styled(text, style)


def console_on_stdout() -> SafeConsole:
    """Return the console for results; in a pipe, wide enough for most rows."""
    found = SafeConsole()
    return found if found.is_terminal else SafeConsole(width=_PIPE_WIDTH)


def console_on_stderr() -> SafeConsole:
    """Return the console that shows what is being done."""
    return SafeConsole(stderr=True)


def styled(text: str, style: str | Style = "") -> Text:
    """Return text that is safe to show, in one style."""
    return Text(for_terminal(text), style=style)
