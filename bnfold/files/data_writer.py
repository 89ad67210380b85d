"""Write a data file as a stream: what is done is put on disk while the rest is computed."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Protocol, Self

from bnfold.files.direct import direct_writer
from bnfold.files.replacing import sync

_CHUNK_BYTES: Final = 1 << 22
_WRITE_BYTES: Final = 1 << 20
"""So much is written at once: four times as much takes ext4 four times as long for a byte."""

_AHEAD_BYTES: Final = 1 << 26
"""So much may be written that the system was not yet asked to put on disk."""

_LARGE_BYTES: Final = 1 << 28
"""From so many bytes on a file is written past the page cache.

Smaller ones are likely to be read again before they would leave it.
"""

_WORTH_A_THREAD: Final = 1 << 16
_AHEAD: Final = 2
"""So many chunks may wait for their digest: they are memory."""

_CANNOT_COPY: Final = frozenset(
    {errno.EXDEV, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF}
    | {errno.ETXTBSY, errno.EIO}
)
"""What the system says where it does not copy from file to file by itself."""


class Digest(Protocol):
    """What bytes can be added to, of `hashlib`."""

    def update(self, data: memoryview, /) -> None:
        """Add bytes."""
        ...


class DataWriter:
    """A new file, written from its beginning to its end; to be used in a ``with`` block.

    Writing, flushing and the digest go on beside whoever makes the contents. The block ends
    when all of it is on disk.
    """

    def __init__(self, path: Path, *, hashed: bool = False, expected: int = 0) -> None:
        """Make the file.

        Args:
            path: Where; nothing is there.
            hashed: Whether its digest is wanted.
            expected: How many bytes it is going to have; 0 where it is read again soon. A
                large file is written past the page cache of the system, where that can be.

        Raises:
            OSError: If it cannot be made.
        """
        self.path = path
        self.size = 0
        self._hash = hashlib.sha256() if hashed else None
        self._unflushed = 0
        self._turns = [_InTurn(_AHEAD) for _ in range(4)]
        self._writer, self._hasher, self._digester, self._flusher = self._turns
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o666)
        is_large = expected >= _LARGE_BYTES
        self._direct = direct_writer(self._descriptor) if is_large else None

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
                self.settle()
                self._flusher.settle()
                sync(self._descriptor)
        finally:
            for turn in self._turns:
                turn.close()
            if self._direct is not None:
                self._direct.close()
            os.close(self._descriptor)

    @property
    def digest(self) -> str:
        """SHA-256 of the contents, once it is closed; empty if it was not wanted."""
        return "" if self._hash is None else self._hash.hexdigest()

    def settle(self) -> None:
        """Wait until all that was written can be read, on disk or not, and is digested.

        Raises:
            OSError: If it cannot be written.
        """
        for turn in (self._writer, self._hasher, self._digester):
            turn.settle()
        if self._direct is not None:
            direct, self._direct = self._direct, None
            direct.finish()

    def write(self, data: bytes | memoryview, digest: Digest | None = None) -> None:
        """Write bytes behind what there is; they are not to be changed afterwards.

        Args:
            data: The bytes.
            digest: What they are added to as well; not complete before `settle`.

        Raises:
            OSError: If they cannot be written, or others before could not.
        """
        whole = memoryview(data).cast("B")
        self.size += whole.nbytes
        if whole.nbytes < _WORTH_A_THREAD:
            self._writer.settle()
            self._write(whole)
            if digest is not None:
                self._digester.settle()
                digest.update(whole)
            return
        if digest is not None:
            self._digester.do(digest.update, whole)
        self._writer.do(self._write, whole)

    def pad_to(self, offset: int) -> None:
        """Write zeros up to an offset.

        Raises:
            OSError: If they cannot be written.
        """
        while self.size < offset:
            self.write(bytes(min(offset - self.size, _CHUNK_BYTES)))

    def copy(
        self, source: int, offset: int, length: int, digest: Digest | None = None
    ) -> None:
        """Copy a part of another file; the system does it by itself where it can.

        Where a digest is wanted, the bytes are read once for both.

        Args:
            source: A descriptor of that file.
            offset: Where the part begins.
            length: How long it is.
            digest: What its bytes are added to as well.

        Raises:
            OSError: If it cannot be copied, or the file is too short.
        """
        self._writer.settle()
        end = offset + length
        is_plain = self._hash is None and digest is None
        while offset < end:
            wanted = min(end - offset, _CHUNK_BYTES)
            if is_plain and wanted >= _WORTH_A_THREAD:
                self._writer.settle()
                done = self._shared(source, offset, end - offset)
                if done:
                    offset += done
                    self.size += done
                    continue
            data = read_at(source, wanted, offset)
            if not data:
                raise OSError(errno.EIO, "a data file is shorter than it was", None)
            self.write(memoryview(data), digest)
            offset += len(data)

    def _shared(self, source: int, offset: int, length: int) -> int:
        """Copy inside of the system, or share blocks; return how much it did, if anything."""
        if self._direct is not None:
            return self._direct.clone(source, offset, length)
        done = _copied(source, self._descriptor, offset, min(length, _AHEAD_BYTES))
        self._flush_behind(done)
        return done

    def _write(self, data: memoryview) -> None:
        if self._hash is not None:
            if data.nbytes < _WORTH_A_THREAD:
                self._hasher.settle()
                self._hash.update(data)
            else:
                self._hasher.do(self._hash.update, data)
        if self._direct is not None:
            self._direct.write(data)
            return
        left = data
        while left:
            left = left[os.write(self._descriptor, left[:_WRITE_BYTES]) :]
        self._flush_behind(data.nbytes)

    def _flush_behind(self, by: int) -> None:
        """Have the system begin to write, so that the end is not all of the waiting."""
        self._unflushed += by
        if self._unflushed >= _AHEAD_BYTES and self._flusher.is_idle():
            self._unflushed = 0
            how = getattr(os, "fdatasync", os.fsync)
            self._flusher.do(sync, self._descriptor, how)


class _InTurn:
    """Does one thing after the other, in a thread that starts when it is needed."""

    def __init__(self, most: int) -> None:
        """Begin with nothing to do.

        Args:
            most: How much may wait.
        """
        self._most = most
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: list[Future[object]] = []

    def do(self, call: Callable[..., object], *arguments: object) -> None:
        """Do something once all before is done; raises what went wrong in that."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1)
        while len(self._waiting) >= self._most:
            self._waiting.pop(0).result()
        self._waiting.append(self._pool.submit(call, *arguments))

    def is_idle(self) -> bool:
        """Whether nothing is left to do."""
        return all(one.done() for one in self._waiting)

    def settle(self) -> None:
        """Wait until all is done; raises what went wrong."""
        while self._waiting:
            self._waiting.pop(0).result()

    def close(self) -> None:
        """Leave what has not begun."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


def read_at(descriptor: int, length: int, offset: int) -> bytes:
    """Read a part of an open file: so many bytes, or fewer where it ends.

    Raises:
        OSError: If it cannot be read.
    """
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, offset)
    os.lseek(descriptor, offset, os.SEEK_SET)
    return os.read(descriptor, length)


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
