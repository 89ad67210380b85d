"""All that commands print: text for people on stderr, data on stdout, nothing raw in either.

No other file of the command line prints. `print_sites` has a console of its own, as safe.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from typing import TextIO

import click

from bnfold.safe_text import for_json_in_ascii, for_terminal, shown_lines


def say(text: str) -> None:
    """Tell the user something; what is not made of lines that are safe becomes one line."""
    click.echo(for_terminal(text), err=True)


def print_text(text: str) -> None:
    """Print what the user wants on stdout, on the same terms."""
    click.echo(for_terminal(text))


def print_json(serialised: str) -> None:
    """Print JSON on stdout, in ASCII where the terminal has no other letters.

    Args:
        serialised: What `to_json` made: exact, and safe.
    """
    try:
        serialised.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        serialised = for_json_in_ascii(serialised)
    click.echo(serialised)


def say_misuse(error: click.ClickException) -> None:
    """Say how a command is used, and what is wrong, as click does: it prints words raw."""
    told = io.StringIO()
    error.show(told)
    message = error.format_message()
    usage = told.getvalue().rpartition(message)[0].split("\n")
    say(shown_lines([*usage[:-1], f"{usage[-1]}{message}"]))


def prepare() -> None:
    """Keep libraries from talking to the user, and letters that a terminal lacks from errors.

    Who asks for warnings with -W or PYTHONWARNINGS, or makes errors of them as our tests do,
    comes first: the filter is the last one. Logging writes to stderr where nobody listens.
    """
    warnings.simplefilter("ignore", append=True)
    logging.getLogger().addHandler(_NOBODY)
    for stream in (sys.stdout, sys.stderr):
        _spell_what_is_lacking(stream)


_NOBODY = logging.NullHandler()


def _spell_what_is_lacking(stream: TextIO) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
