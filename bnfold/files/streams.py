"""Write into what is no file: a pipe, a terminal, a device, an open descriptor."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterable
from typing import Final

from bnfold.files.targets import Target

_PATIENCE_S: Final = 30.0
_PAUSE_S: Final = 0.05


def write_into(target: Target, pieces: Iterable[bytes | memoryview]) -> None:
    """Write to the stream; nothing is replaced and nothing is truncated.

    Args:
        target: The stream.
        pieces: The bytes, in their order.

    Raises:
        OSError: If it cannot be written, or nobody reads from the pipe.
    """
    with os.fdopen(_opened(target), "wb") as file:
        for piece in pieces:
            file.write(piece)


def _opened(target: Target) -> int:
    if target.descriptor is not None:
        return os.dup(target.descriptor)
    if target.found is not None and stat.S_ISFIFO(target.found.st_mode):
        return _reader_found(target)
    return os.open(target.given, os.O_WRONLY)


def _reader_found(target: Target) -> int:
    """Open a pipe as soon as somebody reads from it; waiting for ever would look like work."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            descriptor = os.open(target.given, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > until:
                raise
            time.sleep(_PAUSE_S)
        else:
            os.set_blocking(descriptor, True)
            return descriptor
