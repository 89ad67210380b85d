"""Bytes of models as protobuf could have been told them, usual and unusual, to be drawn."""

from __future__ import annotations

import onnx
from hypothesis import strategies as st

from bnfold.model.wire import header, varint

VARINT, FIXED64, BYTES, GROUP, END, FIXED32 = 0, 1, 2, 3, 4, 5


def told(number: int, contents: bytes) -> bytes:
    """A field of bytes."""
    return header(number, len(contents)) + contents


def number(field: int, value: int) -> bytes:
    """A field that is a number."""
    return varint(field << 3 | VARINT) + varint(value)


def long_varint(value: int, length: int) -> bytes:
    """A number in more bytes than it needs."""
    return bytes(value >> 7 * k & 0x7F | 0x80 for k in range(length - 1)) + bytes(
        [value >> 7 * (length - 1) & 0x7F]
    )


def value_info(name: str, size: int) -> bytes:
    info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None, size])
    return bytes(info.SerializeToString())


def tensor(name: str, dims: tuple[int, ...], data: bytes, kind: int = 1) -> list[bytes]:
    """The fields of a tensor, in the order of their numbers."""
    return [
        *(number(1, size) for size in dims),
        number(2, kind),
        told(8, name.encode()),
        told(9, data),
    ]


def graph(*tensors: bytes) -> list[bytes]:
    """The fields of a graph of one Relu, with initializers that nothing reads."""
    node = onnx.helper.make_node("Relu", ["x"], ["y"], "n").SerializeToString()
    return [
        told(1, node),
        told(2, b"g"),
        *(told(5, one) for one in tensors),
        told(11, value_info("x", 4)),
        told(12, value_info("y", 4)),
    ]


def model(*graphs: bytes) -> list[bytes]:
    opset = onnx.helper.make_opsetid("", 17).SerializeToString()
    return [
        number(1, 8),
        told(2, b"by hand"),
        *(told(7, one) for one in graphs),
        told(8, opset),
    ]


UNKNOWN = (
    number(900, 3),
    number(900, (1 << 64) - 1),
    varint(901 << 3 | FIXED64) + bytes(range(8)),
    varint(901 << 3 | FIXED32) + bytes(range(4)),
    told(902, b"\x0a\x05abcde"),
    told(3, b"number three is a segment in a tensor and reserved elsewhere"),
    varint(903 << 3 | GROUP) + number(1, 2) + varint(903 << 3 | END),
    number(9, 1),
    number(5, 1),
    number(7, 1),
    told(4, b"\0\0\x80\x3f"),
    told(12, b"doc"),
    number(14, 1),
    number(14, 0),
    number(14, 77),
    told(13, told(1, b"location") + told(2, b"w.bin")),
    told(16, told(1, b"key") + told(2, b"text")),
)
"""Fields to be put anywhere: what they are there, is for protobuf to say."""


@st.composite
def tensors(draw, name: str) -> bytes:
    """A tensor, in most cases one that makes sense."""
    kind, width = draw(
        st.sampled_from([(1, 4), (1, 4), (10, 2), (16, 2), (7, 8), (9, 1), (2, 1)])
    )
    dims = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    size = width
    for one in dims:
        size *= one
    parts = tensor(name, tuple(dims), draw(st.binary(min_size=size, max_size=size)), kind)
    oddity = draw(st.sampled_from([None] * 6 + ["twice", "short", "order", "unknown", "long"]))
    if oddity == "twice":
        parts.append(told(9, draw(st.binary(max_size=9))))
    elif oddity == "short":
        parts[-1] = told(9, bytes(draw(st.integers(0, size - 1))))
    elif oddity == "order":
        parts = draw(st.permutations(parts))
    elif oddity == "unknown":
        parts.insert(draw(st.integers(0, len(parts))), draw(st.sampled_from(UNKNOWN)))
    elif oddity == "long":
        parts[-1] = varint(9 << 3 | BYTES) + long_varint(size, draw(st.integers(2, 6)))
        parts.append(bytes(size))
    return b"".join(parts)


@st.composite
def files(draw) -> bytes:
    """The bytes of a model: usual, unusual, or damaged."""
    held = [
        draw(tensors(draw(st.sampled_from("abcd")))) for _ in range(draw(st.integers(0, 4)))
    ]
    inner = graph(*held)
    if draw(st.booleans()):
        inner.insert(draw(st.integers(0, len(inner))), draw(st.sampled_from(UNKNOWN)))
    if draw(st.booleans()):
        inner = draw(st.permutations(inner))
    cut = draw(st.integers(0, len(inner)))
    is_in_pieces = draw(st.integers(0, 9)) == 0
    pieces = (inner[:cut], inner[cut:]) if is_in_pieces else (inner,)
    outer = model(*(b"".join(piece) for piece in pieces))
    if draw(st.integers(0, 2)) == 0:
        outer.insert(draw(st.integers(0, len(outer))), draw(st.sampled_from(UNKNOWN)))
    whole = bytearray(b"".join(outer))
    match draw(st.sampled_from(["whole"] * 6 + ["cut", "changed", "longer"])):
        case "cut":
            del whole[draw(st.integers(0, len(whole))) :]
        case "changed":
            whole[draw(st.integers(0, len(whole) - 1))] = draw(st.integers(0, 255))
        case "longer":
            whole += draw(st.binary(min_size=1, max_size=12))
    return bytes(whole)
