"""Child processes: how one is started, and what its end was."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from bnfold.files.scratch import scratch_folder
from bnfold.safe_text import one_line

_TOLD_CHARACTERS: Final = 600
_TEMPORARY: Final = ("TMPDIR", "TEMP", "TMP")
"""Where a process looks for the folder for temporary files, on all systems."""

_NO_NOTES: Final = "ORT_DISABLE_TELEMETRY"
_LIFELINE: Final = Path(__file__).with_name("lifeline.py")


class Fate(StrEnum):
    """How a child process ended."""

    ENDED = "ended"
    FAILED = "failed"
    DIED = "died"
    TIMED_OUT = "timed-out"


@dataclass(frozen=True, slots=True)
class End:
    """How a child process ended, and what it said last."""

    fate: Fate
    message: str = ""
    exit_code: int = 0


def run_child(
    arguments: Sequence[str],
    timeout_s: float,
    *,
    variables: Mapping[str, str] | None = None,
    own_group: bool = False,
) -> End:
    """Run Python with these arguments, quietly, and describe its end.

    The child ends when this process does, however it does: see `bnfold.runtime.lifeline`.

    Args:
        arguments: What follows the name of the interpreter: ``-m`` or ``-c``, and the rest.
        timeout_s: The child is ended after so many seconds.
        variables: Added to the environment.
        own_group: Keep the terminal's Ctrl-C from the child; the caller's ends it all the
            same.
    """
    command = [sys.executable, "-P", str(_LIFELINE), *arguments]
    try:
        with scratch_folder("child") as temporary, _lifeline() as stdin:
            done = subprocess.run(
                command,
                capture_output=True,
                timeout=timeout_s,
                check=False,
                stdin=stdin,
                env={**_environment(temporary), **(variables or {})},
                start_new_session=own_group,
            )
    except subprocess.TimeoutExpired:
        return End(Fate.TIMED_OUT, f"no answer after {timeout_s:g} s")
    if done.returncode < 0:
        return End(Fate.DIED, f"the runtime died by {_signal_name(-done.returncode)}")
    said = one_line(done.stderr.decode("utf-8", "replace"))
    fate = Fate.FAILED if done.returncode else Fate.ENDED
    said = said[-_TOLD_CHARACTERS:] or f"exit code {done.returncode}"
    return End(fate, said, done.returncode)


@contextlib.contextmanager
def _lifeline() -> Iterator[int]:
    """Give the end of a pipe that a child reads from; the other one is closed with us."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)


def _environment(temporary: Path) -> dict[str, str]:
    """Ours, with this copy of bnfold in front: the child must not find another one.

    What it puts among temporary files goes with it. Unless the user says otherwise, ONNX
    Runtime (from 1.32 on) does not note for its makers what it ran, in files that stay in the
    home of the user.
    """
    here = str(Path(__file__).parents[2])
    others = os.environ.get("PYTHONPATH", "")
    path = os.pathsep.join(filter(None, (here, others)))
    own = {"PYTHONPATH": path, **dict.fromkeys(_TEMPORARY, str(temporary))}
    return {_NO_NOTES: "1", **os.environ, **own}


def _signal_name(number: int) -> str:
    known = number in set(signal.Signals)
    return f"signal {number} ({signal.Signals(number).name})" if known else f"signal {number}"
