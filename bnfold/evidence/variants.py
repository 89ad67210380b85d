"""Copies of a model with other numbers in its constants, made one tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.model.graphs import initializer_bytes
from bnfold.model.io import through_protobuf, to_proto
from bnfold.model.layout import Layout, plan_of

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
_CARRY_MEANING: Final = {"Pow": (1,), "Dropout": (1, 2), "Clip": (1, 2)}
"""Positions of operands that are shapes, or lose their meaning when nudged."""

_DECIDE: Final = {
    **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), (0, 1)),
    **dict.fromkeys(("Floor", "Ceil", "Round", "Sign", "NonZero", "Cast", "IsInf"), (0,)),
    **dict.fromkeys(("QuantizeLinear", "Gather", "GatherElements", "GatherND"), (1,)),
    **dict.fromkeys(("Compress", "OneHot", "TopK", "ScatterElements", "ScatterND"), (1,)),
    "Mod": (0, 1),
    "Where": (0,),
    "If": (0,),
    "Loop": (0, 1),
}
"""Positions of operands on which an operator is not continuous."""

_ELEMENTWISE: Final = frozenset(
    {"Add", "Sub", "Mul", "Div", "Neg", "Abs", "Min", "Max", "Sqrt", "Reciprocal", "Pow"}
    | {"Cast", "CastLike", "Identity", "Where", "Clip", "Floor", "Ceil", "Round", "Range"}
    | {"Reshape", "Unsqueeze", "Squeeze", "Expand", "Tile", "Transpose", "Flatten"}
    | {"Concat", "Slice", "Split", "Constant", "ConstantOfShape", "Shape", "Size", "Trilu"}
    | {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Not"}
    | {"CumSum", "Mod", "NonZero", "Gather"}
)
"""What numbers go through that are counted, compared or selected by, not measured."""

_FLOATS: Final = frozenset(kind for kind in ir.DataType if kind.is_floating_point())
_INSIDE_BYTES: Final = 50_000_000
_LARGE_BYTES: Final = 100_000
QUANTISERS: Final = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
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
    _write(copy, path)


def _write(model: ir.Model, path: Path) -> None:
    """Write a file that is read once and removed: it need not reach the disk.

    Large weights go beside it: the runtime maps them, and nothing holds them twice.
    """
    if plan_of(model, Layout()).files or initializer_bytes(model) > _INSIDE_BYTES:
        ir.external_data.unload_from_model(
            model, path.parent, f"{path.name}.data", size_threshold_bytes=_LARGE_BYTES
        )
    path.write_bytes(to_proto(model).SerializeToString())


def copy_of(model: ir.Model) -> ir.Model:
    """A copy that shares tensors; onnx_ir cannot clone values of sparse initializers."""
    try:
        return model.clone()
    except RuntimeError:
        return through_protobuf(model)


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
    """Names of values that decide shapes, or that mean something else as soon as they move.

    These are: what shapes are computed from; thresholds, bounds and exponents; and whatever
    an operator that is not continuous reads from counts and constants alone, e.g. the 0.5 in
    Floor(Cast(index) · 0.5). What is measured (it depends on a float input, or on a layer)
    may be anywhere between two ties, so what it is multiplied by stays free.
    """
    fixed = {value for node in _nodes(model) for value in _operands(node, _CARRY_MEANING)}
    shapes = [value for node in _nodes(model) for value in _operands(node, _CARRY_SHAPES)]
    fixed |= _upstream(shapes, lambda node: node.op_type not in _ASK_SHAPES)
    measured = _measured(model)
    read = (value for node in _nodes(model) for value in _operands(node, _deciding(node)))
    counted = [value for value in read if value not in measured]
    fixed |= _upstream(counted, lambda node: node.op_type in _ELEMENTWISE)
    return frozenset(value.name for value in fixed if value.name)


def fixed_inputs(model: ir.Model) -> frozenset[str]:
    """Names of inputs that are quantised first of all: nudges meet ties there, or nothing."""
    return frozenset(
        value.name
        for value in model.graph.inputs
        if value.name and value.uses() and all(map(_quantises, value.consumers()))
    )


def _quantises(node: ir.Node) -> bool:
    return node.op_type in QUANTISERS


def _upstream(values: Sequence[ir.Value], passes: Callable[[ir.Node], bool]) -> set[ir.Value]:
    """These values, and all that they are computed from by such nodes."""
    frontier, seen = list(values), set[ir.Value]()
    while frontier:
        value = frontier.pop()
        producer = value.producer()
        if value in seen or not (producer is None or passes(producer)):
            continue
        seen.add(value)
        operands = () if producer is None else producer.inputs
        frontier.extend(operand for operand in operands if operand is not None)
    return seen


def _deciding(node: ir.Node) -> Mapping[str, tuple[int, ...]]:
    """Where this node is not continuous; a Cast between floats is, nearly."""
    is_cast = node.op_type == "Cast"
    to = ir.DataType(node.attributes.get_int("to", 1)) if is_cast else ir.DataType.BOOL
    return {} if to.is_floating_point() else _DECIDE


def _measured(model: ir.Model) -> set[ir.Value]:
    """Values that depend on a float input, or on an operator that mixes elements.

    A row that is gathered from a table of floats is one too.
    """
    measured = {v for v in model.graph.inputs if v.dtype and v.dtype.is_floating_point()}
    for node in _nodes(model):
        table = node.inputs[0] if node.op_type == "Gather" else None
        is_row = table is not None and table.dtype in _FLOATS and len(table.shape or ()) > 1
        if is_row or node.op_type not in _ELEMENTWISE or measured & set(node.inputs):
            measured.update(node.outputs)
    return measured


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
