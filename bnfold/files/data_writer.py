"""Write a data file as a stream: what is done is put on disk while the rest is computed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from bnfold.files.replacing import sync

_CHUNK_BYTES: Final = 1 << 22
_AHEAD_BYTES: Final = 1 << 26
"""So much may be written that the system was not yet asked to put on disk."""

_WORTH_A_THREAD: Final = 1 << 16
_AHEAD: Final = 2
"""So many chunks may wait for their digest: they are memory."""

_CANNOT_COPY: Final = frozenset(
    {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
    | {errno.ETXTBSY, errno.EIO}
)
"""What the system says where it does not copy from file to file by itself."""


class DataWriter:
    """A new file, written from its beginning to its end; to be used in a ``with`` block.

    The block ends when all of it is on disk.
    """

    def __init__(self, path: Path, *, hashed: bool = False) -> None:
        """Make the file.

        Args:
            path: Where; nothing is there.
            hashed: Whether its digest is wanted.

        Raises:
            OSError: If it cannot be made.
        """
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256() if hashed else None
        self._flushed = 0
        self._flush: Future[None] | None = None
        self._hashing: list[Future[None]] = []
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o666)
        self._flusher, self._hasher = ThreadPoolExecutor(1), ThreadPoolExecutor(1)

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Put the rest on disk; after an error nothing is waited for but what runs."""
        try:
            if kind is None:
                self._settle(self._hashing, 0)
                if self._flush is not None:
                    self._flush.result()
                sync(self._descriptor)
        finally:
            self._flusher.shutdown(cancel_futures=True)
            self._hasher.shutdown(cancel_futures=True)
            os.close(self._descriptor)

    @property
    def digest(self) -> str:
        """SHA-256 of the contents, once it is closed; empty if it was not wanted."""
        return "" if self._hash is None else self._hash.hexdigest()

    def write(self, data: bytes | memoryview) -> None:
        """Write bytes behind what there is; they are not to be changed afterwards.

        Raises:
            OSError: If they cannot be written.
        """
        whole = left = memoryview(data).cast("B")
        self._told(whole)
        while left:
            left = left[os.write(self._descriptor, left) :]
        self._grown(whole.nbytes)

    def pad_to(self, offset: int) -> None:
        """Write zeros up to an offset.

        Raises:
            OSError: If they cannot be written.
        """
        while self.size < offset:
            self.write(bytes(min(offset - self.size, _CHUNK_BYTES)))

    def copy(self, source: int, offset: int, length: int) -> None:
        """Copy a part of another file; the system does it by itself where it can.

        Args:
            source: A descriptor of that file.
            offset: Where the part begins.
            length: How long it is.

        Raises:
            OSError: If it cannot be copied, or the file is too short.
        """
        end = offset + length
        while offset < end:
            wanted = min(end - offset, _CHUNK_BYTES)
            if self._hash is None:
                done = _copied(
                    source, self._descriptor, offset, min(end - offset, _AHEAD_BYTES)
                )
                if done:
                    offset += done
                    self._grown(done)
                    continue
            data = os.pread(source, wanted, offset)
            if not data:
                raise OSError(errno.ENODATA, "a data file is shorter than it was", None)
            self.write(data)
            offset += len(data)

    def _told(self, data: memoryview) -> None:
        """Let the digest be computed beside the writing, where that is worth a thread."""
        if self._hash is None:
            return
        if data.nbytes < _WORTH_A_THREAD:
            self._settle(self._hashing, 0)
            self._hash.update(data)
            return
        self._settle(self._hashing, _AHEAD)
        self._hashing.append(self._hasher.submit(self._hash.update, data))

    @staticmethod
    def _settle(waiting: list[Future[None]], most: int) -> None:
        while len(waiting) > most:
            waiting.pop(0).result()

    def _grown(self, by: int) -> None:
        """Have the system begin to write, so that the end is not all of the waiting."""
        self.size += by
        if self.size - self._flushed < _AHEAD_BYTES:
            return
        if self._flush is None or self._flush.done():
            if self._flush is not None:
                self._flush.result()
            self._flushed = self.size
            self._flush = self._flusher.submit(
                sync, self._descriptor, getattr(os, "fdatasync", os.fsync)
            )


def _copied(source: int, target: int, offset: int, length: int) -> int:
    """Copy inside of the system; return how much it did, 0 where it cannot."""
    copy: Callable[..., int] | None = getattr(os, "copy_file_range", None)
    if copy is None:
        return 0
    try:
        return copy(source, target, length, offset)
    except OSError as error:
        if error.errno in _CANNOT_COPY:
            return 0
        raise
