"""Locks that the system takes back when their holder dies, however it dies."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # not on Windows: nothing is locked there, and nothing is taken for dead
    fcntl = None

_PATIENCE_S: Final = 30.0
_PAUSE_S: Final = 0.02


class HeldError(Exception):
    """Somebody else holds the lock."""


def can_lock() -> bool:
    """Whether this system has locks that die with their holder."""
    return fcntl is not None


def lock(descriptor: int) -> bool:
    """Take the lock of an open file; closing it, or dying, gives it back.

    A lock of the kernel rather than a number of a process in a file: numbers are used again,
    and mean nothing in another container or on another machine that shares the folder.

    Returns:
        False where the file system has no locks: then nothing is known of other holders.

    Raises:
        HeldError: If somebody holds it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise HeldError from None
    except OSError:
        return False
    return True


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Be the only one of us that renames and removes files in a folder.

    After half a minute it goes on as it is: the other one is stopped or hangs, and the lock
    only keeps two writers of one model from leaving files of the other behind.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # folders cannot be opened on Windows
        yield
        return
    try:
        _wait_for(descriptor)
        yield
    finally:
        os.close(descriptor)


def _wait_for(descriptor: int) -> None:
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until:
        try:
            lock(descriptor)
        except HeldError:
            time.sleep(_PAUSE_S)
        else:
            return
