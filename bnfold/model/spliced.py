"""Write a model file as a stream: its message without large weights, and these in between.

The bytes are those that protobuf writes for the whole message: in its own bytes of the light
one only the data of the tensors is missing, and the lengths of what holds them. Nothing else
in front of or behind a field depends on what is in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from bnfold.errors import OutputError
from bnfold.files.data_writer import DataWriter
from bnfold.model.held_inside import InFile
from bnfold.model.held_outside import looked_at
from bnfold.model.light import GRAPH, INITIALIZER, RAW_DATA, walked
from bnfold.model.pieces import bytes_of, put_bytes
from bnfold.model.wire import MOST_BYTES, UnusualError, header

_STREAM_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Spliced:
    """The bytes of a model file, in their order.

    Attributes:
        parts: Bytes as they are, and tensors whose bytes follow.
        size: How many bytes there are.
        offsets: Where the bytes of tensors begin, by the number of the initializer.
    """

    parts: tuple[memoryview | ir.TensorProtocol, ...]
    size: int
    offsets: Mapping[int, int]

    def write(self, path: Path) -> tuple[int, ...]:
        """Write a new file and have the system put it on disk.

        Returns:
            What tells the file from every other, as `looked_at` says it.

        Raises:
            OSError: If it cannot be written.
            OutputError: If a tensor has other bytes than it says.
        """
        with DataWriter(path, expected=self.size) as file:
            for part in self.parts:
                before = file.size
                if isinstance(part, memoryview):
                    file.write(part)
                else:
                    put_bytes(part, file)
                    _check_length(part, file.size - before)
        return looked_at(path.stat())

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield all bytes, for what is no file.

        Raises:
            OutputError: If a tensor has other bytes than it says.
        """
        for part in self.parts:
            if isinstance(part, memoryview):
                yield part
                continue
            length = 0
            for piece in _bytes_of(part):
                length += memoryview(piece).nbytes
                yield piece
            _check_length(part, length)


def _bytes_of(tensor: ir.TensorProtocol) -> Iterator[bytes | memoryview]:
    """Yield the bytes of a tensor; of one in a file, so many at once."""
    if not isinstance(tensor, InFile):
        yield from bytes_of(tensor)
        return
    begin = tensor.offset or 0
    for place in range(0, tensor.nbytes, _STREAM_BYTES):
        length = min(tensor.nbytes - place, _STREAM_BYTES)
        yield tensor.file.copied(begin + place, length).data


def _check_length(tensor: ir.TensorProtocol, length: int) -> None:
    if length != tensor.nbytes:
        raise OutputError(
            "cannot write the model",
            where=f"tensor {tensor.name!r}",
            why=f"its elements are {length} bytes, and it says {tensor.nbytes}",
            remedy="this is a fault of bnfold: please report the model",
        )


def spliced(light: bytes, tensors: Mapping[int, ir.TensorProtocol]) -> Spliced | None:
    """Return the bytes of a model from those of its message without some of its weights.

    Args:
        light: The bytes of the message; there, ``raw_data`` of these tensors is empty.
        tensors: They, by the number of the initializer in the main graph.

    Returns:
        None where protobuf has to write the whole: its own bytes are unusual (fields that no
        version of onnx knows), or more than one message can hold.
    """
    try:
        found = walked(lambda place, length: light[place : place + length], len(light), 0)
    except UnusualError:
        return None
    wanted = [part for part in found.parts if part.number in tensors]
    if len(wanted) != len(tensors) or any(part.data.size for part in wanted):
        return None
    more = 0
    held: list[tuple[bytes, bytes]] = []
    for part in wanted:
        size = tensors[part.number].nbytes
        middle = header(RAW_DATA, size)
        longer = len(middle) - (part.data.begin - part.data.start) + size
        front = header(INITIALIZER, part.tensor.size + longer)
        more += longer + len(front) - (part.tensor.begin - part.tensor.start)
        held.append((front, middle))
    graph, whole = found.graph, memoryview(light)
    first = header(GRAPH, graph.size + more)
    total = len(light) + more + len(first) - (graph.begin - graph.start)
    if total > MOST_BYTES:
        return None
    parts: list[memoryview | ir.TensorProtocol] = [whole[: graph.start], memoryview(first)]
    offsets: dict[int, int] = {}
    place, end = graph.begin, graph.start + len(first)
    for (number, tensor, data), (front, middle) in zip(wanted, held, strict=True):
        pieces = (
            whole[place : tensor.start],
            memoryview(front),
            whole[tensor.begin : data.start],
            memoryview(middle),
        )
        end += sum(piece.nbytes for piece in pieces)
        offsets[number] = end
        parts += [*pieces, tensors[number]]
        end += tensors[number].nbytes
        place = data.end
    parts.append(whole[place:])
    return Spliced(tuple(parts), total, offsets)
