"""Large tensors inside of an ``.onnx`` file, read from there as they are asked for.

Whoever asks gets what protobuf would have given, had it read the whole file: the same
message, the same elements, the same copy. Elements are copied out of the file, never mapped:
a file that somebody writes over is an error then, and changes no array that was handed out.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final

import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.model.held_outside import DataFile, HeldOutside, MappedOutside, elements_at

_WHOLE_BYTES: Final = 8
"""Bits of an element from which on any part can be read alone; smaller ones are unpacked."""


class HeldInside(ir.serde.TensorProtoTensor):
    """A tensor whose message was read without its ``raw_data``.

    It is one of onnx_ir's tensors of messages, so that everybody treats it as inside.
    """

    __slots__ = ("_file", "_offset", "_view")

    def __init__(self, light: onnx.TensorProto, file: DataFile, offset: int) -> None:
        """Take the place of a tensor.

        Args:
            light: Its message, without ``raw_data``; what it says was checked.
            file: The ``.onnx`` file.
            offset: Where in it the contents of ``raw_data`` begin.
        """
        super().__init__(light)
        self._file = file
        self._offset = offset
        self._view: Callable[[], NDArray[Any] | None] | None = None

    @property
    def file(self) -> DataFile:
        """The file that is read, which stays the same one."""
        return self._file

    @property
    def offset(self) -> int:
        """Where its bytes begin in the file."""
        return self._offset

    @property
    def key(self) -> tuple[object, ...]:
        """What tells its elements from those of every other tensor: equal keys, equal ones."""
        shape = tuple(int(size) for size in self.shape.numpy())
        return (*self._file.key, self._offset, self.dtype, shape)

    @property
    def light(self) -> onnx.TensorProto:
        """Its message without ``raw_data``; not to be changed."""
        return self._proto

    @property
    def raw(self) -> onnx.TensorProto:
        """Its message as it was in the file, a copy: what onnx_ir writes."""
        whole = onnx.TensorProto()
        whole.CopyFrom(self._proto)
        whole.raw_data = self.tobytes()
        return whole

    def numpy(self) -> NDArray[Any]:
        """Return the elements; the same array as long as somebody holds it."""
        found = None if self._view is None else self._view()
        if found is None:
            found = self._whole()
            self._view = weakref.ref(found)
        return found

    def _whole(self) -> NDArray[Any]:
        found: NDArray[Any] = ir.serde.TensorProtoTensor(self.raw).numpy()
        return found

    def tobytes(self) -> bytes:
        """Return the bytes of the elements as they lie in the file."""
        return self._file.copied(self._offset, self.nbytes).tobytes()

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Be copied and pickled with all its bytes, as a tensor that needs no file."""
        return _whole, (self.raw, dict(self.metadata_props), dict(self.meta))


def _whole(
    message: onnx.TensorProto, metadata_props: dict[str, str], meta: dict[str, Any]
) -> ir.serde.TensorProtoTensor:
    """Return a tensor that has all its bytes in memory."""
    whole = ir.serde.TensorProtoTensor(message)
    whole.metadata_props.clear()
    whole.metadata_props.update(metadata_props)
    whole.meta.update(meta)
    return whole


class ReadInside(HeldInside):
    """One whose elements take whole bytes: any part of it can be read alone."""

    __slots__ = ()

    def _whole(self) -> NDArray[Any]:
        return self.part(0, self.size).reshape(tuple(self.shape.numpy()))

    def part(self, start: int, stop: int) -> NDArray[Any]:
        """Return the elements ``start`` to ``stop`` in C order, as an array of one axis."""
        return elements_at(self._file.copied, self.dtype, self._offset, start, stop)


InFile = HeldOutside | HeldInside
"""A tensor whose bytes are a range of a file that was checked."""

PartsInFile = MappedOutside | ReadInside
"""One of which any part can be read alone."""


def held_inside(light: onnx.TensorProto, file: DataFile, offset: int) -> HeldInside:
    """Return what reads a tensor that lies in a model file."""
    is_whole = ir.DataType(light.data_type).bitwidth % _WHOLE_BYTES == 0
    return (ReadInside if is_whole else HeldInside)(light, file, offset)
