"""What exporters leave behind and nobody needs: arithmetic of shapes, notes on the machine.

BatchNormalization is not touched here: the optimiser of torch's exporter would fold it in the
type of the weights, and the folder does it in float64. So it is hidden while that optimiser
runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import onnx
import onnx_ir as ir

_HIDDEN: Final = "bnfold.hidden"
_KEPT: Final = "BatchNormalization"
_WORD: Final = re.compile(r"[A-Za-z_]\w*")


class _Annotated(Protocol):
    """A part of a model that can carry notes for people."""

    def ClearField(self, name: str) -> None: ...  # noqa: N802 - protobuf's own spelling


def forget_the_machine(model: onnx.ModelProto) -> None:
    """Remove the notes in which exporters name source files of the machine they ran on."""
    for part in _annotated_parts(model):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")


def _annotated_parts(model: onnx.ModelProto) -> Iterable[_Annotated]:
    """Yield the model and everything in its graphs and functions that can carry notes."""
    yield model
    yield from _parts_of(model.graph)
    for function in model.functions:
        yield from (function, *function.value_info)
        yield from _nodes_of(function.node)


def _parts_of(graph: onnx.GraphProto) -> Iterator[_Annotated]:
    yield from (graph, *graph.input, *graph.output, *graph.value_info, *graph.initializer)
    yield from _nodes_of(graph.node)


def _nodes_of(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Annotated]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            own = (attribute.g,) if attribute.HasField("g") else ()
            for graph in (*own, *attribute.graphs):
                yield from _parts_of(graph)


def optimized(model: ir.Model) -> None:
    """Simplify what the dynamo exporter writes without its optimiser, BatchNorm apart."""
    from onnxscript import optimizer

    drop_zero_biases(model)
    hidden = [node for node in _nodes(model) if (node.domain, node.op_type) == ("", _KEPT)]
    model.graph.opset_imports[_HIDDEN] = 1
    for node in hidden:
        node.domain = _HIDDEN
    try:
        optimizer.optimize_ir(model)
    finally:
        for node in _nodes(model):
            if node.domain == _HIDDEN:
                node.domain = ""
        model.graph.opset_imports.pop(_HIDDEN, None)


def drop_zero_biases(model: ir.Model) -> None:
    """Take the bias of zeros away that the dynamo exporter gives to a Conv without one.

    It is ``Expand(CastLike(0, x), Shape(W))``; of a Conv3d its shape is wrong besides
    (onnxscript 0.7.2).
    """
    for node in _nodes(model):
        if node.op_type == "Conv" and len(node.inputs) > 2 and _is_zeros(node.inputs[2]):
            node.resize_inputs(2)


def name_interface(
    model: ir.Model, names: Sequence[str], axes: Sequence[Mapping[int, str]]
) -> None:
    """Give inputs and open sizes the names they were to have.

    The dynamo exporter renames an input that is returned as it is, and mixes up open sizes
    where an argument is no tensor (torch 2.13).

    Args:
        model: The model.
        names: Of its inputs.
        axes: From every open axis of an input to its name.
    """
    if len(model.graph.inputs) != len(names):
        return
    symbols: dict[str, str] = {}
    for value, name, open_axes in zip(model.graph.inputs, names, axes, strict=True):
        value.name = name
        for axis, symbol in open_axes.items():
            dim = None if value.shape is None else value.shape[axis]
            if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
                symbols[dim.value] = symbol
    values = [*model.graph.inputs, *(out for node in _nodes(model) for out in node.outputs)]
    for value in values:
        if value.shape is not None and not value.shape.frozen:
            _rename_sizes(value.shape, symbols)


def _rename_sizes(shape: ir.Shape, symbols: Mapping[str, str]) -> None:
    """Rename symbols in sizes, also in those that are expressions."""
    for axis, dim in enumerate(shape):
        if isinstance(dim, ir.SymbolicDim) and dim.value is not None:
            fresh = _WORD.sub(lambda word: symbols.get(word[0], word[0]), dim.value)
            if fresh != dim.value:
                shape[axis] = fresh


def _is_zeros(value: ir.Value | None) -> bool:
    """Whether a value is zero, cast and expanded."""
    steps = 0
    while value is not None and steps < 3:
        made = value.producer()
        if made is not None and made.op_type in ("Expand", "CastLike", "Cast"):
            value, steps = made.inputs[0], steps + 1
            continue
        constant = ir.convenience.get_const_tensor(value)
        return steps > 0 and constant is not None and not constant.numpy().any()
    return False


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()
