"""All that commands print: text for people on stderr, data on stdout, nothing raw in either.

No other file of the command line prints. `print_sites` has a console of its own, as safe.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

import click

from bnfold.errors import OutputError
from bnfold.safe_text import for_json_in_ascii, for_terminal, shown_lines


def say(text: str) -> None:
    """Tell the user something; what is not made of lines that are safe becomes one line."""
    click.echo(for_terminal(text), err=True)


def print_text(text: str) -> None:
    """Print what the user wants on stdout, on the same terms.

    Raises:
        OutputError: If it cannot be written, other than to a pipe that nobody reads any more.
    """
    _print(for_terminal(text))


def _print(text: str) -> None:
    with to_stdout():
        click.echo(text)


@contextlib.contextmanager
def to_stdout() -> Iterator[None]:
    """Say in words that stdout cannot be written to, for a block.

    Raises:
        OutputError: If so; a pipe that nobody reads any more goes on as it is.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        # What is held back would be written, and fail, once more as the process ends.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(
            "cannot write the result",
            where="standard output",
            why=error.strerror or str(error),
            remedy="free some space where it goes to, or send it elsewhere",
        ) from error


def print_json(serialised: str) -> None:
    """Print JSON on stdout, in ASCII where the terminal has no other letters.

    Args:
        serialised: What `to_json` made: exact, and safe.

    Raises:
        OutputError: If it cannot be written, other than to a pipe that nobody reads any more.
    """
    try:
        serialised.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        serialised = for_json_in_ascii(serialised)
    _print(serialised)


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
