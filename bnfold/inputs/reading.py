"""A graph read for the sake of its inputs: symbols of dimensions followed through it.

Every open dimension of an input gets a symbol, and onnx's own shape inference is the table of
which axis of an operand is which axis of a result: where a symbol of an input turns up again,
the size is that of the input. Where a size is computed, inference makes a new symbol, and the
node that it came from can be asked what the operand must be (`bnfold.inputs.producers`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Final

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bnfold.inputs.signature import Dim
from bnfold.model.attributes import ints_attr
from bnfold.model.constants import Constant
from bnfold.model.facts import Facts
from bnfold.model.graphs import graphs_of, subgraphs_of
from bnfold.model.inlining import inline_calls
from bnfold.model.shapes import Dims
from bnfold.model.written_out import why_not_written_out

_SMALL: Final = 1 << 12
"""Constants of more elements are no axes, sizes or offsets: they are not evaluated."""

_STANDARD: Final = ("", "ai.onnx")
_KIND: Final = "bnfold.kind"
_RUNTIME_DOMAIN: Final = "com.microsoft"
_AS: Final = {
    **dict.fromkeys(
        (
            "BiasAdd", "BiasGelu", "DequantizeLinear", "FastGelu", "Gelu", "QuantizeLinear",
            "QuickGelu", "SimplifiedLayerNormalization", "SkipLayerNormalization",
            "SkipSimplifiedLayerNormalization",
        ),
        "Identity",
    ),
    "FusedConv": "Conv",
    "FusedGemm": "Gemm",
}  # fmt: skip
"""Operators of ONNX Runtime, which onnx infers nothing of, and which of its own have results
of the same shape."""


def kind_of(node: ir.Node) -> str:
    """Return the operator that a node of a private copy has in the model."""
    return str(node.meta.get(_KIND, node.op_type))


def private_copy(model: ir.Model) -> ir.Model:
    """Return a copy that may be changed: functions inlined, and no inner shape declared.

    Exporters name inner dimensions anew, which would hide where they come from. What operators
    outside of the specification result in stays declared: nothing else tells it.
    """
    copy = model.clone()
    if copy.functions and not why_not_written_out(copy):
        inline_calls(copy)
    for graph in graphs_of(copy.graph):
        for node in graph:
            _make_inferable(node)
            if node.domain in _STANDARD:
                for value in node.outputs:
                    value.shape = None
    return copy


def _make_inferable(node: ir.Node) -> None:
    like = _AS.get(node.op_type) if node.domain == _RUNTIME_DOMAIN else None
    if like is not None:
        node.meta[_KIND] = node.op_type
        node.domain, node.op_type = "", like


class Reading:
    """What is known of a graph whose inputs have these dimensions; found out when asked."""

    def __init__(self, copy: ir.Model, dims: Mapping[str, Sequence[Dim] | None]) -> None:
        for value in copy.graph.inputs:
            if value.name is not None and value.name in dims:
                wanted = dims[value.name]
                value.shape = None if wanted is None else ir.Shape(wanted)
        self._model = copy
        self.graph = copy.graph

    @cached_property
    def nodes(self) -> tuple[ir.Node, ...]:
        """Every node in topological order, what stands in its subgraphs in front of it."""
        return tuple(_walk(self.graph))

    def dims(self, value: ir.Value | None) -> Dims | None:
        """Return the dimensions of a value: sizes and symbols."""
        return None if value is None else self._facts.shape(value)

    def is_constant(self, value: ir.Value | None) -> bool:
        """Return whether a value is the same whatever the inputs are."""
        return value is not None and value not in self._dynamic

    def elements(self, value: ir.Value | None) -> NDArray[np.float64] | None:
        """Return the elements of a small constant; None for any other value."""
        if value is None or value in self._dynamic:
            return None
        dims = self.dims(value)
        sizes = [dim for dim in dims or () if isinstance(dim, int)]
        if dims is None or len(sizes) < len(dims) or np.prod([1, *sizes]) > _SMALL:
            return None
        found = self._facts.constant(value)
        if not isinstance(found, Constant) or found.dtype is ir.DataType.STRING:
            return None
        return np.asarray(found.stored(), np.float64)

    def ints(
        self, node: ir.Node, index: int, name: str, default: Sequence[int] | None = None
    ) -> tuple[int, ...] | None:
        """Return integers that are an attribute in old versions and an input in new ones."""
        if index < len(node.inputs) and node.inputs[index] is not None:
            found = self.elements(node.inputs[index])
            return None if found is None else tuple(int(one) for one in found.reshape(-1))
        listed = ints_attr(node, name) if name else ()
        return listed or (None if default is None else tuple(default))

    def owner(self, value: ir.Value) -> ir.Node | None:
        """Return the node whose subgraph hands this value out."""
        graph = value.graph
        handed = graph is not None and any(out is value for out in graph.outputs)
        return self._owners.get(graph) if handed and graph is not None else None

    @cached_property
    def _facts(self) -> Facts:
        return Facts(self._model)

    @cached_property
    def _owners(self) -> dict[ir.Graph, ir.Node]:
        return {graph: node for node in self.nodes for graph in subgraphs_of(node)}

    @cached_property
    def _dynamic(self) -> set[ir.Value]:
        """Everything that is computed from inputs, or in a subgraph that is chosen by them."""
        found = {value for value in self.graph.inputs if value.const_value is None}
        for graph in self._owners:
            found.update(graph.inputs)
        for node in self.nodes:
            reads = any(value in found for value in node.inputs)
            if reads or next(subgraphs_of(node), None) is not None:
                found.update(node.outputs)
        return found

    @cached_property
    def origins(self) -> dict[str, tuple[ir.Value, int]]:
        """For every symbol that no input has, the first value and axis that have it."""
        seen = {dim for value in self.graph.inputs for dim in self.dims(value) or ()}
        found: dict[str, tuple[ir.Value, int]] = {}
        for node in self.nodes:
            for value in node.outputs:
                for axis, dim in enumerate(self.dims(value) or ()):
                    if isinstance(dim, str) and dim not in seen:
                        found.setdefault(dim, (value, axis))
        return found


def _walk(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        for inner in subgraphs_of(node):
            yield from _walk(inner)
        yield node
