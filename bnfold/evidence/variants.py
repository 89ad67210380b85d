"""Copies of a model with other numbers in its constants, made one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.model.io import from_proto, to_proto
from bnfold.model.save import save

Change = Callable[[str, ir.TensorProtocol], ir.TensorProtocol]
"""From the name of a constant and its tensor to the tensor that takes its place."""

_CARRY_SHAPES: Final = {
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "Reshape": (1,),
    "Expand": (1,),
    "Tile": (1,),
    "Range": (0, 1, 2),
    "ConstantOfShape": (0,),
    "Slice": (1, 2, 3, 4),
    "Pad": (1, 3),
    "TopK": (1,),
    "NonMaxSuppression": (2, 3, 4),
}
_CARRY_MEANING: Final = {"Pow": (1,), "Equal": (0, 1), "Mod": (0, 1), "Dropout": (1, 2)}
"""Positions of operands that are shapes, or lose their meaning when nudged."""

_ASK_SHAPES: Final = frozenset({"Shape", "Size", "NonZero"})
_FLOAT_ATTRIBUTES: Final = (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS)
_WIDENED_ATTRIBUTES: Final = ("to", "dtype", "output_dtype")


def write_variant(model: ir.Model, path: Path, change: Change) -> None:
    """Write a copy in which ``change`` has been asked about every constant."""
    copy = copy_of(model)
    for graph in _graphs(copy):
        for name, value in graph.initializers.items():
            if value.const_value is not None:
                value.const_value = change(name, value.const_value)
    for node in _nodes(copy):
        _change_attributes(node, change)
    save(copy, path)


def copy_of(model: ir.Model) -> ir.Model:
    """A copy that shares tensors; onnx_ir cannot clone values of sparse initializers."""
    try:
        return model.clone()
    except RuntimeError:
        return from_proto(to_proto(model))


def with_types_widened(model: ir.Model, narrow: frozenset[ir.DataType]) -> ir.Model:
    """A copy in which values of those types are declared float32; constants stay.

    ``write_variant`` with a widening change must follow before it is a valid model again.
    """
    copy = copy_of(model)
    for graph in _graphs(copy):
        for value in (*graph.inputs, *graph.initializers.values()):
            _widen_value(value, narrow)
    for node in _nodes(copy):
        for value in node.outputs:
            _widen_value(value, narrow)
        for name in _WIDENED_ATTRIBUTES:
            attribute = node.attributes.get(name)
            if attribute is not None and attribute.value in {int(kind) for kind in narrow}:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    return copy


def constants_of(model: ir.Model) -> Iterator[ir.TensorProtocol]:
    """Every tensor stored in the model, wherever it lives."""
    for graph in _graphs(model):
        stored = (value.const_value for value in graph.initializers.values())
        yield from (tensor for tensor in stored if tensor is not None)
    for node in _nodes(model):
        yield from (tensor for _, tensor in _tensor_attributes(node))


def operators_of(model: ir.Model) -> frozenset[str]:
    """Kinds of operators in the model, its subgraphs and its functions."""
    return frozenset(node.op_type for node in _nodes(model))


def fixed_constants(model: ir.Model) -> frozenset[str]:
    """Names of values that decide shapes, or that mean something else as soon as they move."""
    fixed = {value.name for node in _nodes(model) for value in _operands(node, _CARRY_MEANING)}
    frontier = [value for node in _nodes(model) for value in _operands(node, _CARRY_SHAPES)]
    seen: set[ir.Value] = set()
    while frontier:
        value = frontier.pop()
        producer = value.producer()
        if value not in seen and (producer is None or producer.op_type not in _ASK_SHAPES):
            seen.add(value)
            operands = () if producer is None else producer.inputs
            frontier.extend(operand for operand in operands if operand is not None)
    return frozenset(name for name in fixed | {value.name for value in seen} if name)


def _operands(node: ir.Node, positions: Mapping[str, tuple[int, ...]]) -> Iterator[ir.Value]:
    for position in positions.get(node.op_type, ()):
        operand = node.inputs[position] if position < len(node.inputs) else None
        if operand is not None:
            yield operand


def _graphs(model: ir.Model) -> Iterator[ir.Graph]:
    yield model.graph
    yield from model.graph.subgraphs()
    for function in model.functions.values():
        yield from function.subgraphs()


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _tensor_attributes(node: ir.Node) -> Iterator[tuple[str, ir.TensorProtocol]]:
    """Stored tensors of a node, the numbers of a Constant included."""
    for name, attribute in node.attributes.items():
        if attribute.is_ref():
            continue
        if attribute.type is ir.AttributeType.TENSOR:
            yield name, attribute.as_tensor()
        elif node.op_type == "Constant" and attribute.type in _FLOAT_ATTRIBUTES:
            yield name, ir.tensor(np.asarray(attribute.value, dtype=np.float32))


def _change_attributes(node: ir.Node, change: Change) -> None:
    for name, tensor in tuple(_tensor_attributes(node)):
        changed = change(node.outputs[0].name or node.op_type, tensor)
        if changed is not tensor:
            del node.attributes[name]
            stored = "value" if node.op_type == "Constant" else name
            node.attributes[stored] = ir.AttrTensor(stored, changed)


def _widen_value(value: ir.Value, narrow: frozenset[ir.DataType]) -> None:
    if value.dtype in narrow:
        value.type = ir.TensorType(ir.DataType.FLOAT)
