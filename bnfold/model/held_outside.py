"""Tensors in data files: mapped for as long as somebody holds what was read, and no longer."""

from __future__ import annotations

import contextlib
import mmap
import os
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.errors import ModelError
from bnfold.files.data_writer import read_at

_COPIED_BYTES: Final = 1 << 16
"""Parts up to this size are read: to map them takes longer."""

_KEPT_BYTES: Final = 1 << 10
"""Tensors up to this size are kept once they are read: they are asked for again and again."""

_MOST_OPEN: Final = 64
"""So many data files stay open; of more, each is opened whenever it is read."""

_WHOLE_BYTES: Final = 8
"""Bits of an element from which on it can be mapped; smaller ones are unpacked."""


_open: Final[set[int]] = set()
"""The descriptors of the data files that stay open."""


class DataFile:
    """A file that tensors are read from: the same file, unchanged, at every read.

    It is opened when it is first read. Whatever becomes of its name then does not matter.
    """

    def __init__(self, path: Path, seen: tuple[int, ...] | None = None) -> None:
        """Look at the file, which was checked.

        Args:
            path: An absolute path without links.
            seen: What `looked_at` said of it, where somebody has looked already.

        Raises:
            ModelError: If it is not there any more.
        """
        self.path = path
        self._descriptor: int | None = None
        if seen is not None:
            self._seen = seen
            return
        try:
            self._seen = looked_at(path.stat())
        except OSError as error:
            raise _changed(path, error.strerror or str(error)) from error

    @property
    def key(self) -> tuple[int, ...]:
        """What tells this file, as it was when it was found, from every other."""
        return self._seen

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Open the file, or use it as it is open.

        Yields:
            A descriptor; not to be closed, nor to be used afterwards.

        Raises:
            ModelError: If it cannot be opened, or is not what it was.
        """
        if self._descriptor is not None:
            yield self._descriptor
            return
        descriptor = self._checked()
        if len(_open) < _MOST_OPEN:
            _open.add(descriptor)
            self._descriptor = descriptor
            weakref.finalize(self, _closed, descriptor)
            yield descriptor
            return
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _checked(self) -> int:
        try:
            # it may have become a pipe since: that must not block
            flags = getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(self.path, os.O_RDONLY | flags)
        except OSError as error:
            raise _changed(self.path, error.strerror or str(error)) from error
        if looked_at(os.fstat(descriptor)) != self._seen:
            os.close(descriptor)
            raise _changed(self.path, "it was written to, or another file took its place")
        return descriptor

    def part(self, offset: int, length: int) -> memoryview:
        """Return a part of the file: a copy of a small one, a map of a large one.

        Raises:
            ModelError: If it cannot be read, or the file has become too short.
        """
        before = offset % mmap.ALLOCATIONGRANULARITY
        with self.opened() as descriptor:
            try:
                if length <= _COPIED_BYTES:
                    data = read_at(descriptor, length, offset)
                    if len(data) == length:
                        return memoryview(data)
                    raise _changed(self.path, "it is shorter than it was")
                size = before + length
                begin = offset - before
                found = mmap.mmap(descriptor, size, access=mmap.ACCESS_READ, offset=begin)
            except (OSError, ValueError) as error:
                raise _changed(self.path, str(error)) from error
        return memoryview(found)[before:]

    def copied(self, offset: int, length: int) -> NDArray[np.uint8]:
        """Return a copy of a part of the file, which nothing that happens to it changes.

        Raises:
            ModelError: If it cannot be read, or was written to.
        """
        found = np.empty(length, np.uint8)
        left = found.data
        with self.opened() as descriptor:
            try:
                while left and (done := os.preadv(descriptor, [left], offset)):
                    left, offset = left[done:], offset + done
            except OSError as error:
                raise _changed(self.path, error.strerror or str(error)) from error
            if left:
                raise _changed(self.path, "it is shorter than it was")
        self.check()
        found.flags.writeable = False
        return found

    def check(self) -> None:
        """Find out whether what was read of the file until now is what it was.

        Raises:
            ModelError: If it was written to.
        """
        with self.opened() as descriptor:
            if looked_at(os.fstat(descriptor)) != self._seen:
                raise _changed(self.path, "it was written to")


def _closed(descriptor: int) -> None:
    _open.discard(descriptor)
    with contextlib.suppress(OSError):
        os.close(descriptor)


def looked_at(found: os.stat_result) -> tuple[int, ...]:
    """Return what tells a file, as it is now, from every other."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _changed(path: Path, why: str) -> ModelError:
    return ModelError(
        "the data of the model cannot be read any more",
        where=str(path),
        why=why,
        remedy="leave the files of a model alone while it is worked on, and try again",
    )


class HeldOutside(ir.ExternalTensor):
    """A tensor in a file that was checked: it is read from there, whatever links are called.

    onnx_ir would look for it in the current folder, and refuse the links of model hubs' caches
    and files that have a second name; which files may be read was decided before. And it
    would keep what was read mapped: here the pages go with the last array that shows them.
    """

    __slots__ = ("_file", "_view")

    def __init__(self, like: ir.ExternalTensor, file: DataFile) -> None:
        """Take the place of a tensor.

        Args:
            like: The tensor as onnx_ir read it.
            file: Where its data is.
        """
        super().__init__(
            like.location,
            like.offset,
            like.length,
            like.dtype,
            shape=like.shape,
            name=like.name,
            doc_string=like.doc_string,
            metadata_props=dict(like.metadata_props),
        )
        self._file = file
        self._view: Callable[[], NDArray[Any] | None] | None = None

    @property
    def path(self) -> str:
        """The file that is read."""
        return str(self._file.path)

    @property
    def file(self) -> DataFile:
        """The file that is read, which stays the same one."""
        return self._file

    @property
    def key(self) -> tuple[object, ...]:
        """What tells its elements from those of every other tensor: equal keys, equal ones."""
        shape = tuple(int(size) for size in self.shape.numpy())
        return (*self._file.key, self.offset or 0, self.dtype, shape)

    def numpy(self) -> NDArray[Any]:
        """Return the elements, mapped from the file; or unpacked, if they share bytes."""
        found = None if self._view is None else self._view()
        if found is None:
            found = self._whole()
            is_small = self.nbytes <= _KEPT_BYTES
            self._view = (lambda kept=found: kept) if is_small else weakref.ref(found)
        return found

    def _whole(self) -> NDArray[Any]:
        """Let onnx_ir unpack what shares bytes, and forget it."""
        try:
            found: NDArray[Any] = super().numpy()
        finally:
            self._array = self.raw = None
        return found

    def __array__(self, dtype: Any = None) -> NDArray[Any]:
        """Return the elements for numpy."""
        return np.asarray(self.numpy(), dtype)

    def tobytes(self) -> bytes:
        """Return the bytes of the elements as they lie in the file."""
        if not self.nbytes:
            return b""
        return bytes(self._file.part(self.offset or 0, self.nbytes))


class MappedOutside(HeldOutside):
    """One whose elements take whole bytes: any part of it can be mapped alone."""

    __slots__ = ()

    def _whole(self) -> NDArray[Any]:
        return self.part(0, self.size).reshape(tuple(self.shape.numpy()))

    def part(self, start: int, stop: int) -> NDArray[Any]:
        """Return the elements ``start`` to ``stop`` in C order, as an array of one axis."""
        return elements_at(self._file.part, self.dtype, self.offset or 0, start, stop)


def elements_at(
    read: Callable[[int, int], Any], dtype: ir.DataType, offset: int, start: int, stop: int
) -> NDArray[Any]:
    """Return elements of whole bytes that lie in a file one after the other.

    Args:
        read: Gives the bytes from an offset on, so many.
        dtype: Of the elements.
        offset: Where the first of all lies.
        start: The first that is asked for.
        stop: The one behind the last.
    """
    kind = np.dtype(dtype.numpy())
    if start >= stop:
        return np.empty(0, kind)
    data = read(offset + start * kind.itemsize, (stop - start) * kind.itemsize)
    return np.frombuffer(data, kind.newbyteorder("<"), stop - start)


def held_outside(like: ir.ExternalTensor, file: DataFile) -> HeldOutside:
    """Return what reads a tensor from a file that was checked."""
    is_mapped = like.dtype.bitwidth % _WHOLE_BYTES == 0
    return (MappedOutside if is_mapped else HeldOutside)(like, file)
