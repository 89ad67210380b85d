"""Every tensor of a model file, wherever it stands, and whether it holds what it says."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import onnx
import onnx_ir as ir

from bnfold.errors import ModelError

_TYPES: Final = {int(kind): kind for kind in ir.DataType if kind is not ir.DataType.UNDEFINED}
_INT32: Final = "int32_data"
# fmt: off
_FIELDS: Final = {
    "FLOAT": "float_data", "COMPLEX64": "float_data", "DOUBLE": "double_data",
    "COMPLEX128": "double_data", "INT64": "int64_data", "UINT32": "uint64_data",
    "UINT64": "uint64_data", "STRING": "string_data",
}
# fmt: on
"""Where the elements of a type are where they are not raw (onnx.proto); others: int32_data."""
_LISTS: Final = (
    "float_data",
    _INT32,
    "int64_data",
    "double_data",
    "uint64_data",
    "string_data",
)
_MOST_DIM: Final = 1 << 48
_STRICT: Final = ("FLOAT6E2M3", "FLOAT6E3M2")
_PAIRS: Final = ("COMPLEX64", "COMPLEX128")


class Stored(NamedTuple):
    """A tensor of a model file, and where it stands.

    Attributes:
        tensor: The message.
        place: Where it stands, in words.
        is_plain: Whether it is an initializer or an attribute of a node: all else onnx_ir
            neither maps from its file nor looks at.
        raw_bytes: How many bytes its raw_data has that was left out of the message (`light`);
            None where nothing was.
    """

    tensor: onnx.TensorProto
    place: str
    is_plain: bool = True
    raw_bytes: int | None = None


def stored_tensors(proto: onnx.ModelProto) -> Iterator[Stored]:
    """Yield every tensor of a model: of graphs, attributes, functions and training."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        inside = f"function {function.name!r}, "
        yield from _of_nodes(function.node, inside)
        for default in function.attribute_proto:
            place = f"{inside}attribute {default.name!r}"
            yield from map(_rare, _of_attribute(default, place))
    for training in proto.training_info:
        for graph in (training.initialization, training.algorithm):
            yield from map(_rare, _of_graph(graph))


def _rare(stored: Stored) -> Stored:
    return stored._replace(is_plain=False)


def _of_graph(graph: onnx.GraphProto) -> Iterator[Stored]:
    for tensor in graph.initializer:
        yield Stored(tensor, f"tensor {tensor.name!r}")
    for sparse in graph.sparse_initializer:
        yield from _of_sparse(sparse, f"sparse tensor {sparse.values.name!r}")
    yield from _of_nodes(graph.node, "")


def _of_nodes(nodes: Iterable[onnx.NodeProto], inside: str) -> Iterator[Stored]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.type not in _NUMBERS:
                named = node.name or node.op_type
                place = f"{inside}node {named!r}, attribute {attribute.name!r}"
                yield from _of_attribute(attribute, place)


_NUMBERS: Final = frozenset(
    getattr(onnx.AttributeProto, kind)
    for kind in ("FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS")
)
"""Attributes without tensors, most of a large graph: others were refused before."""


def _of_attribute(attribute: onnx.AttributeProto, place: str) -> Iterator[Stored]:
    if attribute.HasField("t"):
        yield Stored(attribute.t, place)
    for tensor in attribute.tensors:
        yield Stored(tensor, place)
    if attribute.HasField("sparse_tensor"):
        yield from _of_sparse(attribute.sparse_tensor, place)
    for sparse in attribute.sparse_tensors:
        yield from _of_sparse(sparse, place)
    if attribute.HasField("g"):
        yield from _of_graph(attribute.g)
    for graph in attribute.graphs:
        yield from _of_graph(graph)


def _of_sparse(sparse: onnx.SparseTensorProto, place: str) -> Iterator[Stored]:
    yield Stored(sparse.values, f"{place}, values", is_plain=False)
    yield Stored(sparse.indices, f"{place}, indices", is_plain=False)


def check_tensor(stored: Stored, where: str) -> None:
    """Refuse a tensor whose type or shape makes no sense, or that holds more or less.

    Where the bytes lie outside of the file, nothing is read: see `external`.

    Raises:
        ModelError: Naming the tensor, and what is wrong with it.
    """
    tensor, kind = stored.tensor, _TYPES.get(stored.tensor.data_type)
    if kind is None:
        raise _fault(
            stored,
            where,
            "a tensor has no element type that is known",
            f"its data_type is {tensor.data_type}",
        )
    if any(not 0 <= size <= _MOST_DIM for size in tensor.dims):
        raise _fault(
            stored, where, "the shape of a tensor makes no sense", f"it is {list(tensor.dims)}"
        )
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        _check_held(stored, kind, where)
        if kind.name in _STRICT:
            _check_readable(stored, where)


def needed_bytes(tensor: onnx.TensorProto) -> int:
    """Return how many bytes the elements of a tensor take, packed as in raw_data."""
    count: int = math.prod(tensor.dims)
    return (count * int(_TYPES[tensor.data_type].bitwidth) + 7) // 8


def _check_held(stored: Stored, kind: ir.DataType, where: str) -> None:
    tensor, left_out = stored.tensor, stored.raw_bytes
    is_raw = left_out is not None or tensor.HasField("raw_data")
    if is_raw:
        held = len(tensor.raw_data) if left_out is None else left_out
        needed, unit = _raw_bytes(tensor, kind), "bytes"
    else:
        field = _FIELDS.get(kind.name, _INT32)
        held, needed = len(getattr(tensor, field)), _entries(tensor, kind)
        unit = f"numbers in {field}"
    others = (name for name in _LISTS if len(getattr(tensor, name)))
    own = "" if is_raw else _FIELDS.get(kind.name, _INT32)
    if stray := next((name for name in others if name != own), ""):
        why = f"it holds numbers in {stray}, which is not where {kind.name} belongs"
        raise _fault(stored, where, "a tensor holds its elements twice or elsewhere", why)
    if held == needed:
        return
    shaped = f"{kind.name} of shape {list(tensor.dims)}"
    if not held:
        what, why = "a tensor has no data", f"it is a {shaped} and holds nothing"
    else:
        what = "a tensor has more or fewer bytes than its shape"
        why = f"it holds {held} {unit}, a {shaped} needs {needed}"
    raise _fault(stored, where, what, why)


def _check_readable(stored: Stored, where: str) -> None:
    """Read a tensor of a type of which not every pattern of bits is a number."""
    try:
        ir.serde.TensorProtoTensor(stored.tensor).numpy()
    except (ValueError, AssertionError, OverflowError) as error:
        what = "a tensor holds what is no number of its type"
        raise _fault(stored, where, what, str(error)) from error


def _raw_bytes(tensor: onnx.TensorProto, kind: ir.DataType) -> int:
    return -1 if kind is ir.DataType.STRING else needed_bytes(tensor)


def _entries(tensor: onnx.TensorProto, kind: ir.DataType) -> int:
    """How many numbers the repeated field of a type has: small ones share a byte."""
    count: int = math.prod(tensor.dims)
    if kind.name in _PAIRS:
        return 2 * count
    bits = 8 if kind is ir.DataType.STRING else int(kind.bitwidth)
    return -(-count * bits // 8) if bits in (2, 4) else count


def check_sparse(sparse: onnx.SparseTensorProto, where: str) -> None:
    """Refuse a sparse tensor whose indices do not lie in its shape.

    Its parts have been checked as tensors, and hold their own data.

    Raises:
        ModelError: Naming the tensor.
    """
    stored = Stored(sparse.values, f"sparse tensor {sparse.values.name!r}")
    dims, count, shape = list(sparse.dims), list(sparse.values.dims), list(sparse.indices.dims)
    why = ""
    if not dims or any(not 0 < size <= _MOST_DIM for size in dims):
        why = f"its shape is {dims}"
    elif len(count) != 1 or shape not in ([count[0]], [count[0], len(dims)]):
        why = f"its values have the shape {count}, its indices {shape}"
    elif sparse.indices.data_type != onnx.TensorProto.INT64:
        why = "its indices are no INT64"
    elif sparse.values.data_type == onnx.TensorProto.STRING:
        why = "its values are strings"
    if why:
        raise _fault(stored, where, "a sparse tensor makes no sense", why)


def _fault(stored: Stored, where: str, what: str, why: str) -> ModelError:
    return ModelError(
        what, where=f"{where}: {stored.place}", why=why, remedy="export the model again"
    )
