"""Read a large ``.onnx`` file without its large weights: these are read as they are asked for.

protobuf reads a file as a whole, and then holds it a second time. So the file is walked first
(`wire`): ModelProto.graph, GraphProto.initializer, TensorProto.raw_data. What is left of it
without the large ``raw_data`` is a message of its own, which protobuf reads as ever.

Nothing is decided here that protobuf would decide otherwise: where the bytes are unusual, or
a tensor is anything but one plain ``raw_data`` that fits its shape, protobuf reads all.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import onnx
from google.protobuf.message import DecodeError

from bnfold.errors import ModelError
from bnfold.files.data_writer import read_at
from bnfold.files.identity import real_path
from bnfold.model.held_outside import DataFile
from bnfold.model.regular import UnreadableError, size_of
from bnfold.model.tensors import Stored, check_tensor
from bnfold.model.wire import (
    BYTES,
    MOST_BYTES,
    Field,
    Read,
    Steps,
    UnusualError,
    fields,
    header,
)

LEAST_FILE_BYTES = 1 << 26
"""Smaller files are read as a whole: it takes less memory than this library does."""

LEAST_BYTES = 1 << 16
"""Smaller tensors are: to read them one by one would take longer."""

LEAST_SHARE = 0.5
"""Where less of a file can be left out, the rest, put together, takes as much as the whole."""

GRAPH: Final = 7
INITIALIZER: Final = 5
RAW_DATA: Final = 9
"""Numbers of fields: of ModelProto, of GraphProto, of TensorProto (onnx.proto)."""

_MOST_STEPS: Final = 1 << 22
"""So many fields of a file are looked at, some ten seconds; with more, protobuf reads it."""

_OUTER_BYTES: Final = 1 << 18
_INNER_BYTES: Final = 1 << 12
"""So much is read at once of a graph, and of a tensor in front of its data."""


@dataclass(frozen=True, slots=True)
class Light:
    """A model without its large weights.

    Attributes:
        proto: The message.
        file: The file that it was read from.
        offsets: Where ``raw_data`` lies of the initializers of the main graph that have none
            in the message, by their number there.
    """

    proto: onnx.ModelProto
    file: DataFile
    offsets: Mapping[int, int]


class Part(NamedTuple):
    """An initializer, and its data in it."""

    number: int
    tensor: Field
    data: Field


@dataclass(slots=True)
class Walked:
    """Where large weights lie in the bytes of a model.

    Attributes:
        graph: The main graph.
        parts: The initializers that have one plain ``raw_data``, as large as was asked for.
        count: How many initializers the graph has.
    """

    graph: Field
    parts: list[Part] = field(default_factory=list)
    count: int = 0


def walked(read: Read, size: int, least: int) -> Walked:
    """Find the initializers of the main graph whose ``raw_data`` has so many bytes.

    Args:
        read: Reads the bytes of the model.
        size: How many they are.
        least: How many bytes of data are worth it.

    Raises:
        UnusualError: If the bytes are damaged, or a graph is told in pieces.
    """
    steps = Steps(_MOST_STEPS)
    top = fields(read, 0, size, _OUTER_BYTES, steps)
    graphs = [one for one in top if one.number == GRAPH]
    if len(graphs) != 1 or graphs[0].kind != BYTES:
        message = "it has no graph, or parts of one that are to be put together"
        raise UnusualError(message)
    found = Walked(graphs[0])
    for one in fields(read, graphs[0].begin, graphs[0].end, _OUTER_BYTES, steps):
        if one.number != INITIALIZER or one.kind != BYTES:
            continue
        if one.size >= least:
            inner = fields(read, one.begin, one.end, _INNER_BYTES, steps)
            data = [part for part in inner if part.number == RAW_DATA]
            if len(data) == 1 and data[0].kind == BYTES and data[0].size >= least:
                found.parts.append(Part(found.count, one, data[0]))
        found.count += 1
    return found


def light_of(path: Path) -> Light | None:
    """Read a model without its large weights.

    Returns:
        None for a small file, one without large weights, and one that protobuf is to read as
        a whole: because it is unusual or damaged, or cannot be read at all.
    """
    try:
        size = size_of(path)
        if not LEAST_FILE_BYTES <= size <= MOST_BYTES or not hasattr(os, "preadv"):
            return None
        file = DataFile(real_path(path))
        with file.opened() as descriptor:
            found = _read(file, descriptor)
        file.check()
    except (UnreadableError, UnusualError, DecodeError, ModelError, OSError):
        return None
    return found


def _read(file: DataFile, descriptor: int) -> Light | None:
    size = os.fstat(descriptor).st_size
    if size > MOST_BYTES:
        return None

    def read(place: int, length: int) -> bytes:
        return read_at(descriptor, length, place)

    found = walked(read, size, LEAST_BYTES)
    left_out = sum(part.data.size for part in found.parts)
    if not left_out or left_out < LEAST_SHARE * size:
        return None
    proto = onnx.ModelProto()
    proto.ParseFromString(b"".join(_lightened(found, read, size)))
    if len(proto.graph.initializer) != found.count:
        return None
    return Light(proto, file, _plain(proto, found, file))


def _lightened(found: Walked, read: Read, size: int) -> Iterator[bytes]:
    """Yield the bytes of the model without the data of its parts."""

    def kept(begin: int, end: int) -> Iterator[bytes]:
        while begin < end:
            piece = read(begin, end - begin)
            if not piece:
                message = "it has become shorter"
                raise UnusualError(message)
            yield piece
            begin += len(piece)

    shorter = 0
    for part in found.parts:
        gone = part.data.end - part.data.start
        front = len(header(INITIALIZER, part.tensor.size))
        shorter += gone + front - len(header(INITIALIZER, part.tensor.size - gone))
    graph, place = found.graph, found.graph.begin
    yield from kept(0, graph.start)
    yield header(GRAPH, graph.size - shorter)
    for _, tensor, data in found.parts:
        yield from kept(place, tensor.start)
        yield header(INITIALIZER, tensor.size - (data.end - data.start))
        yield from kept(tensor.begin, data.start)
        yield from kept(data.end, tensor.end)
        place = tensor.end
    yield from kept(place, size)


def _plain(proto: onnx.ModelProto, found: Walked, file: DataFile) -> dict[int, int]:
    """Return where the tensors lie that are plain; give all others their data back.

    Whatever is wrong with one of those, is found where it ever was, and said as it ever was.
    """
    counts = Counter(tensor.name for tensor in proto.graph.initializer)
    offsets: dict[int, int] = {}
    for number, _, data in found.parts:
        tensor = proto.graph.initializer[number]
        if counts[tensor.name] == 1 and _is_plain(tensor, data.size):
            offsets[number] = data.begin
        else:
            tensor.raw_data = file.copied(data.begin, data.size).tobytes()
    return offsets


def _is_plain(tensor: onnx.TensorProto, size: int) -> bool:
    is_outside = tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data
    is_strict = tensor.data_type in _STRICT
    if is_outside or is_strict or not tensor.name or tensor.HasField("segment"):
        return False
    try:
        check_tensor(Stored(tensor, "", raw_bytes=size), "")
    except ModelError:
        return False
    return True


_STRICT: Final = frozenset({onnx.TensorProto.FLOAT6E2M3, onnx.TensorProto.FLOAT6E3M2})
"""Types whose elements are looked at when the model is read: not every pattern is one."""
