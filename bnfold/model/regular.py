"""Read files that are files: no pipe that never ends, no device, no folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

_KINDS: Final = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe, which could be read only once and may never end"),
    (stat.S_ISCHR, "it is a character device"),
    (stat.S_ISBLK, "it is a block device"),
    (stat.S_ISSOCK, "it is a socket"),
)


class UnreadableError(Exception):
    """A file that cannot be read; the text says why."""


def kind_fault(mode: int) -> str:
    """Say what a file is by its mode if it is no regular file; empty if it is."""
    if stat.S_ISREG(mode):
        return ""
    return next((why for test, why in _KINDS if test(mode)), "it is no regular file")


def size_of(path: str | Path) -> int:
    """Return the size of a regular file in bytes; nothing is opened.

    Raises:
        UnreadableError: If there is none, or it is something else.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  a str stays one: Path would change "a//b"
    except (OSError, ValueError) as error:
        raise UnreadableError(_said(error)) from error
    if why := kind_fault(found.st_mode):
        raise UnreadableError(why)
    return found.st_size


def read_regular(path: str | Path, most_bytes: int) -> bytes:
    """Return the contents of a regular file.

    Args:
        path: The file; links are followed.
        most_bytes: What it may hold.

    Raises:
        UnreadableError: If there is none, it is something else, or it is larger.
    """
    _check_size(size_of(path), most_bytes)
    try:
        # it may have become a pipe since: that must not block
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if why := kind_fault(found.st_mode):
                raise UnreadableError(why)
            _check_size(found.st_size, most_bytes)
            contents = file.read(found.st_size)
            if len(contents) != found.st_size or file.read(1):
                message = "its size changes while it is read, or is not what the system says"
                raise UnreadableError(message)
    except OSError as error:
        raise UnreadableError(_said(error)) from error
    return contents


def _check_size(size_bytes: int, most_bytes: int) -> None:
    if size_bytes > most_bytes:
        message = f"it has {size_bytes} bytes, {most_bytes} is the most that is read"
        raise UnreadableError(message)


def _said(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
