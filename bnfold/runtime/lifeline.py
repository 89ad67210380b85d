"""Run Python so that it ends with its parent: ``python lifeline.py -m module …``.

A file to be run, not imported: it must be at work before anything that can hang is loaded, so
it knows nothing of the package.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import stat
import sys
import threading

_STDIN = 0
_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def hold() -> None:
    """End this process as soon as the other end of the pipe at stdin is closed.

    The system closes it, however the parent ends. The thread that waits for that needs the
    interpreter for a moment, which a library may keep to itself: where the kernel can, it
    ends us too.
    """
    if not stat.S_ISFIFO(os.fstat(_STDIN).st_mode):
        return  # started by hand
    threading.Thread(target=_wait, name="lifeline", daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGKILL)


def run(kind: str, what: str, *arguments: str) -> None:
    """Do what ``python -m what …`` or ``python -c what …`` does."""
    sys.argv = [what if kind == "-m" else kind, *arguments]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def _wait() -> None:
    while os.read(_STDIN, 1 << 12):
        pass
    os._exit(1)


if __name__ == "__main__":
    hold()
    run(*sys.argv[1:])
