"""The command line, in this process and in one of its own."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from unittest.mock import patch

import pytest

from bnfold.cli.main import main

Done = subprocess.CompletedProcess[str]


def run(*arguments: object) -> Done:
    """Run a command here, with what is loaded already: a start takes most of a second."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["bnfold", *map(str, arguments)]
    with (
        patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Done(argv, int(ended.value.code or 0), out.getvalue(), err.getvalue())


def started(*arguments: object) -> Done:
    """Start a command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "bnfold", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
