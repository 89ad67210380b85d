"""Spoil the protobuf of a valid model at random, the same way for the same seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import helper, numpy_helper

Rng = np.random.Generator
INTEGERS = (0, 1, -1, 2, 3, 7, 64, -64, 1 << 16, 1 << 31, -(1 << 31), 1 << 40, (1 << 63) - 1,
            -(1 << 63))  # fmt: skip
SMALL = (0, 1, -1, 2, 3, -2, 5, 17)
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e38,
    -1e38,
    1e-45,
    0.5,
)
TEXTS = ("", "x", "y", "w", "NOTSET", "SAME_UPPER", "nearest", "constant", "é", "a" * 300)
OPERATORS = tuple(
    sorted({schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain})
)


def mutated(model: onnx.ModelProto, seed: int) -> bytes:
    """The bytes of a model with one to four faults."""
    rng = np.random.default_rng(seed)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for _ in range(int(rng.integers(1, 5))):
        change = CHANGES[rng.choice(len(CHANGES), p=WEIGHTS)]
        try:
            change(copy, rng)
        except (ValueError, TypeError, OverflowError, onnx.defs.SchemaError):
            continue  # protobuf itself refuses the value
    data = copy.SerializeToString()
    return _bytes_spoiled(data, rng) if rng.random() < 0.08 else data


def _pick(rng: Rng, entries: Any) -> Any:
    entries = list(entries)
    if not entries:
        raise ValueError
    return entries[int(rng.integers(len(entries)))]


def _messages(message: Message) -> Iterator[Message]:
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for one in value if _is_repeated(value) else [value]:
                yield from _messages(one)


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "__len__") and hasattr(value, "append")


def _of_kind(model: onnx.ModelProto, kind: type) -> list[Any]:
    return [one for one in _messages(model) if isinstance(one, kind)]


def _value_for(field: Any, rng: Rng, model: onnx.ModelProto) -> Any:
    if field.type in (field.TYPE_INT32, field.TYPE_ENUM):
        return int(_pick(rng, (*SMALL, 1 << 30)))
    if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_UINT64):
        return int(_pick(rng, INTEGERS))
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return float(_pick(rng, FLOATS))
    if field.type == field.TYPE_STRING:
        return _pick(rng, (*TEXTS, *_names(model)))
    if field.type == field.TYPE_BYTES:
        return rng.bytes(int(_pick(rng, (0, 1, 3, 4, 8, 64))))
    raise ValueError


def _names(model: onnx.ModelProto) -> list[str]:
    found = [name for node in model.graph.node for name in (*node.input, *node.output)]
    return found + [one.name for one in model.graph.initializer] or [""]


def any_field(model: onnx.ModelProto, rng: Rng) -> None:
    """Another value in a field of any message."""
    message = _pick(rng, _messages(model))
    field = _pick(rng, message.DESCRIPTOR.fields)
    if field.type == field.TYPE_MESSAGE:
        raise ValueError
    value = _value_for(field, rng, model)
    held = getattr(message, field.name)
    if not _is_repeated(held):
        setattr(message, field.name, value)
    elif len(held) and rng.random() < 0.7:
        held[int(rng.integers(len(held)))] = value
    else:
        held.append(value)


def list_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    """An entry of a list left out, there twice, or all of them turned around."""
    lists = [
        (message, field)
        for message in _messages(model)
        for field, value in message.ListFields()
        if _is_repeated(value) and not isinstance(value, str | bytes)
    ]
    message, field = _pick(rng, lists)
    held = getattr(message, field.name)
    place = int(rng.integers(len(held)))
    match int(rng.integers(4)):
        case 0:
            del held[place]
        case 1:
            held.append(held[place])
        case 2:
            copies = list(held)[::-1]
            del held[:]
            held.extend(copies)
        case _:
            del held[:]


def field_cleared(model: onnx.ModelProto, rng: Rng) -> None:
    message = _pick(rng, _messages(model))
    message.ClearField(_pick(rng, message.ListFields())[0].name)


def dims_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    """Huge, negative or absent sizes of tensors and values."""
    kinds = (onnx.TensorProto, onnx.TensorShapeProto.Dimension)
    one = _pick(rng, [m for kind in kinds for m in _of_kind(model, kind)])
    if isinstance(one, onnx.TensorProto):
        if len(one.dims) and rng.random() < 0.8:
            one.dims[int(rng.integers(len(one.dims)))] = int(_pick(rng, INTEGERS))
        else:
            one.dims.append(int(_pick(rng, INTEGERS)))
    elif rng.random() < 0.3:
        one.dim_param = _pick(rng, ("N", "", "M", "a + b", "2"))
    else:
        one.dim_value = int(_pick(rng, INTEGERS))


def type_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    tensors = _of_kind(model, onnx.TensorProto)
    values = _of_kind(model, onnx.TypeProto.Tensor)
    one = _pick(rng, [*tensors, *values])
    kind = int(rng.integers(0, 30))
    if isinstance(one, onnx.TensorProto):
        one.data_type = kind
    else:
        one.elem_type = kind


def contents_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    """Other numbers in a tensor: sizes, axes and indices become absurd, weights infinite."""
    tensor = _pick(rng, _of_kind(model, onnx.TensorProto))
    array = numpy_helper.to_array(tensor).copy()
    if not array.size:
        raise ValueError
    flat = array.reshape(-1)
    place = slice(None) if rng.random() < 0.2 else int(rng.integers(flat.size))
    with np.errstate(all="ignore"):
        values = FLOATS if array.dtype.kind in "fV" else INTEGERS
        flat[place] = np.array(_pick(rng, values)).astype(array.dtype)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def wiring_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    """Another name, or none, in the inputs or outputs of a node."""
    node = _pick(rng, _of_kind(model, onnx.NodeProto))
    names = _pick(rng, (node.input, node.output))
    name = _pick(rng, (*_names(model), "", "nowhere"))
    if len(names) and rng.random() < 0.7:
        names[int(rng.integers(len(names)))] = name
    else:
        names.append(name)


def operator_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    node = _pick(rng, _of_kind(model, onnx.NodeProto))
    node.op_type = _pick(rng, OPERATORS)


def node_added(model: onnx.ModelProto, rng: Rng) -> None:
    """An operator between two nodes, with as many inputs as it takes."""
    schema = onnx.defs.get_schema(_pick(rng, OPERATORS))
    graph = model.graph
    count = int(
        rng.integers(schema.min_input, min(schema.max_input, schema.min_input + 3) + 1)
    )
    inputs = [_pick(rng, _names(model)) for _ in range(count)]
    place = int(rng.integers(len(graph.node)))
    reader = graph.node[place]
    node = helper.make_node(schema.name, inputs, [f"added{rng.integers(1 << 30)}"])
    _attributes_for(node, schema, rng)
    if len(reader.input):
        slot = int(rng.integers(len(reader.input)))
        if len(node.input):
            node.input[0] = reader.input[slot]
        reader.input[slot] = node.output[0]
    graph.node.insert(place, node)


def attribute_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    """Another number in an attribute, another type, or one that was not there."""
    node = _pick(rng, _of_kind(model, onnx.NodeProto))
    if len(node.attribute) and rng.random() < 0.6:
        one = _pick(rng, node.attribute)
        if rng.random() < 0.3:
            one.type = int(rng.integers(0, 16))
        elif len(one.ints):
            one.ints[int(rng.integers(len(one.ints)))] = int(_pick(rng, INTEGERS))
        elif one.HasField("f"):
            one.f = float(_pick(rng, FLOATS))
        elif one.HasField("s"):
            one.s = str(_pick(rng, TEXTS)).encode()
        else:
            one.i = int(_pick(rng, INTEGERS))
        return
    opset = model.opset_import[0].version if model.opset_import else 17
    _attributes_for(node, onnx.defs.get_schema(node.op_type, opset, ""), rng)


def _attributes_for(node: onnx.NodeProto, schema: Any, rng: Rng) -> None:
    for name, asked in schema.attributes.items():
        if asked.required or rng.random() < 0.3:
            kind = onnx.AttributeProto.AttributeType.Name(int(asked.type.value))
            value = _attribute_value(kind, rng)
            if value is not None:
                node.attribute.append(helper.make_attribute(name, value))


def _attribute_value(kind: str, rng: Rng) -> Any:
    count = int(rng.integers(1, 5))
    match kind:
        case "INT":
            return int(_pick(rng, SMALL if rng.random() < 0.7 else INTEGERS))
        case "FLOAT":
            return float(_pick(rng, FLOATS))
        case "STRING":
            return str(_pick(rng, TEXTS))
        case "INTS":
            return [int(_pick(rng, SMALL)) for _ in range(count)]
        case "FLOATS":
            return [float(_pick(rng, FLOATS)) for _ in range(count)]
        case _:
            return None


def opset_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    one = _pick(rng, model.opset_import)
    if rng.random() < 0.8:
        one.version = int(_pick(rng, (*range(-1, 28), 99, 1 << 31, (1 << 63) - 1)))
    else:
        one.domain = _pick(rng, ("", "ai.onnx", "com.microsoft", "no.where"))


def names_spoiled(model: onnx.ModelProto, rng: Rng) -> None:
    """Names that are there twice, or empty."""
    kinds = (onnx.NodeProto, onnx.TensorProto, onnx.ValueInfoProto, onnx.GraphProto)
    found = [one for kind in kinds for one in _of_kind(model, kind)]
    one, other = _pick(rng, found), _pick(rng, found)
    one.name = other.name if rng.random() < 0.7 else ""


def _bytes_spoiled(data: bytes, rng: Rng) -> bytes:
    if rng.random() < 0.4:
        return data[: int(rng.integers(len(data)))]
    spoiled = bytearray(data)
    for _ in range(int(rng.integers(1, 8))):
        spoiled[int(rng.integers(len(spoiled)))] = int(rng.integers(256))
    return bytes(spoiled)


_WEIGHTED: tuple[tuple[Callable[[onnx.ModelProto, Rng], None], float], ...] = (
    (any_field, 3),
    (list_spoiled, 2),
    (field_cleared, 1),
    (dims_spoiled, 3),
    (type_spoiled, 2),
    (contents_spoiled, 3),
    (wiring_spoiled, 2),
    (operator_spoiled, 3),
    (node_added, 3),
    (attribute_spoiled, 4),
    (opset_spoiled, 1),
    (names_spoiled, 1),
)
CHANGES = tuple(change for change, _ in _WEIGHTED)
WEIGHTS = np.array([weight for _, weight in _WEIGHTED]) / sum(w for _, w in _WEIGHTED)
