"""Signals that ask the command to end: it removes what it has on the way first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_ASKS: Final = ("SIGTERM", "SIGHUP")
_AGAIN_S: Final = 2.0
"""So long a signal that follows another one does not disturb the tidying up."""

_REMINDER_S: Final = 20.0
"""An exception that a signal raises is lost where it meets a destructor, or a library that
catches everything: who has not ended after so long is asked once more."""

_BASE: Final = 128
"""What shells add to the number of a signal for an exit code."""


class Ending:
    """How the command was asked to end."""

    def __init__(self) -> None:
        self._number = int(signal.SIGINT)
        self._last_s = float("-inf")
        self._reminder: threading.Timer | None = None

    @property
    def exit_code(self) -> int:
        """The exit code for what ended it: 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
        return _BASE + self._number

    @contextmanager
    def like_ctrl_c(self) -> Iterator[None]:
        """Have SIGTERM and SIGHUP raise KeyboardInterrupt, unless somebody ignores them.

        So whatever is done for Ctrl-C is done for them: children end, folders are removed, a
        benchmark gives what it has.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # nobody else gets signals
            return
        numbers = [getattr(signal, name) for name in _ASKS if hasattr(signal, name)]
        asked = [one for one in numbers if signal.getsignal(one) is signal.SIG_DFL]
        for number in asked:
            signal.signal(number, self._raise)
        try:
            yield
        finally:
            if self._reminder is not None:
                self._reminder.cancel()
            for number in asked:
                signal.signal(number, signal.SIG_DFL)

    def _raise(self, number: int, _: FrameType | None) -> None:
        if time.monotonic() - self._last_s > _AGAIN_S:
            self._number, self._last_s = number, time.monotonic()
            self._remind(number)
            raise KeyboardInterrupt

    def _remind(self, number: int) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
        self._reminder = threading.Timer(_REMINDER_S, os.kill, (os.getpid(), number))
        self._reminder.daemon = True
        self._reminder.start()
