"""Child processes: how one is started, and what its end was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

_TOLD_CHARACTERS: Final = 600


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

    Args:
        arguments: What follows the name of the interpreter.
        timeout_s: The child is ended after so many seconds.
        variables: Added to the environment.
        own_group: Keep the terminal's Ctrl-C from the child; the caller's ends it all the
            same.
    """
    command = [sys.executable, "-P", *arguments]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**_environment(), **(variables or {})},
            start_new_session=own_group,
        )
    except subprocess.TimeoutExpired:
        return End(Fate.TIMED_OUT, f"no answer after {timeout_s:g} s")
    if done.returncode < 0:
        return End(Fate.DIED, f"the runtime died by {_signal_name(-done.returncode)}")
    said = done.stderr.decode("utf-8", "replace").strip()
    fate = Fate.FAILED if done.returncode else Fate.ENDED
    said = said[-_TOLD_CHARACTERS:] or f"exit code {done.returncode}"
    return End(fate, said, done.returncode)


def _environment() -> dict[str, str]:
    """Ours, with this copy of bnfold in front: the child must not find another one."""
    here = str(Path(__file__).parents[2])
    others = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (here, others)))}


def _signal_name(number: int) -> str:
    known = number in set(signal.Signals)
    return f"signal {number} ({signal.Signals(number).name})" if known else f"signal {number}"
