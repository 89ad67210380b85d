"""A signal that asks for the end is answered, also where its exception is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LOST = """
import os, signal, sys, time
from bnfold.cli import signals

signals._REMINDER_S = 0.3
signals._AGAIN_S = 0.1
ending = signals.Ending()


class Last:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(10):
            time.sleep(0.01)


try:
    with ending.like_ctrl_c():
        one = Last()
        del one
        print("lost", flush=True)
        time.sleep(20)
except KeyboardInterrupt:
    sys.exit(ending.exit_code)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="POSIX signals")
def test_a_signal_that_a_destructor_swallows_is_sent_again() -> None:
    """Python ignores what is raised in a ``__del__``: the command went on for ever."""
    done = subprocess.run(
        [sys.executable, "-c", LOST],
        capture_output=True,
        text=True,
        timeout=15,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "lost\n"
    assert done.returncode == 128 + signal.SIGTERM
