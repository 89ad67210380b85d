"""Read a model file, or the graph that the runtime wrote after its optimisation.

Such a graph has operators of the runtime's own domains, so it is read for its nodes and the
shapes of its constants only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto

_BINARY: Final = frozenset({"Mul", "Add", "Sub", "Div"})
_BLOCKED: Final = "com.microsoft.nchwc"
_OURS: Final = frozenset({"", "ai.onnx"})
_FLOATS: Final = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}
)
CHANNEL: Final = "channel"
SCALAR: Final = "scalar"
_NOT_RUN: Final = "Constant"


@dataclass(frozen=True, slots=True)
class Affine:
    """An affine node of a file: its name, operator, and along what its constant varies."""

    name: str
    kind: str
    along: str


@dataclass(frozen=True, slots=True)
class FileGraph:
    """What stands in a model file, subgraphs and functions included.

    Attributes:
        kinds: Nodes by operator; operators of other domains with the domain in front.
        affine: Its affine nodes, in order.
    """

    kinds: Mapping[str, int]
    affine: tuple[Affine, ...]


def read_graph(path: Path) -> FileGraph:
    """Read the nodes of a file; its external data is not touched.

    A node is affine when it is a BatchNormalization, a Mul, Add, Sub or Div of floats with one
    constant operand that varies along one axis at most, by its shape, or a depthwise Conv of
    one tap: that is what ONNX Runtime's NCHWc layout makes of a BatchNormalization that it
    could not fold.
    """
    model = onnx.load(path, load_external_data=False)
    kinds: Counter[str] = Counter()
    affine: list[Affine] = []
    bodies = [(model.graph, _Constants())]
    for graph, constants in _graphs(bodies):
        for node in graph:
            kinds[operator_of(node)] += 1
            along = _along(node, constants)
            if along is not None:
                kind = "depthwise Conv" if node.op_type == "Conv" else node.op_type
                affine.append(Affine(node.name, kind, along))
    for function in model.functions:
        kinds.update(operator_of(node) for node in function.node)
    del kinds[_NOT_RUN]
    return FileGraph(dict(sorted(kinds.items())), tuple(affine))


def operator_of(node: NodeProto) -> str:
    """Its operator, with the domain in front where that is not ONNX's own."""
    return node.op_type if node.domain in _OURS else f"{node.domain}:{node.op_type}"


@dataclass(frozen=True, slots=True)
class _Constants:
    """Shapes of the constants that a graph can read; None for what holds no floats."""

    shapes: dict[str, tuple[int, ...] | None] = field(default_factory=dict)

    def inside(self, graph: GraphProto) -> _Constants:
        """With those of a graph that stands in this one."""
        found = dict(self.shapes)
        for tensor in graph.initializer:
            found[tensor.name] = _float_shape(tensor)
        for node in graph.node:
            if node.op_type == _NOT_RUN and node.output:
                found[node.output[0]] = _constant_shape(node)
        return _Constants(found)


def _graphs(
    bodies: list[tuple[GraphProto, _Constants]],
) -> Iterator[tuple[list[NodeProto], _Constants]]:
    while bodies:
        graph, outer = bodies.pop(0)
        constants = outer.inside(graph)
        yield list(graph.node), constants
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == AttributeProto.GRAPH:
                    bodies.append((attribute.g, constants))
                bodies.extend((inner, constants) for inner in attribute.graphs)


def _along(node: NodeProto, constants: _Constants) -> str | None:
    """Along what the constant of an affine node varies; None for any other node."""
    if node.op_type == "Conv" and node.domain in {*_OURS, _BLOCKED}:
        return CHANNEL if _is_single_tap(node, constants) else None
    if node.domain not in _OURS:
        return None
    if node.op_type == "BatchNormalization":
        return CHANNEL
    if node.op_type not in _BINARY:
        return None
    known = [index for index, name in enumerate(node.input) if name in constants.shapes]
    if len(known) != 1 or (node.op_type == "Div" and known == [0]):
        return None
    shape = constants.shapes[node.input[known[0]]]
    if shape is None or sum(size > 1 for size in shape) > 1:
        return None
    return SCALAR if math.prod(shape) == 1 else CHANNEL


def _is_single_tap(node: NodeProto, constants: _Constants) -> bool:
    """Whether each channel of a convolution is one number times one input channel."""
    shape = constants.shapes.get(node.input[1]) if len(node.input) > 1 else None
    told = {attribute.name: attribute for attribute in node.attribute}
    group = told["group"].i if "group" in told else 1
    if shape is None or group < 2 or math.prod(shape[1:]) != 1 or shape[0] < group:
        return False
    strides = told["strides"].ints if "strides" in told else ()
    pads = told["pads"].ints if "pads" in told else ()
    return all(one == 1 for one in strides) and not any(pads)


def _float_shape(tensor: TensorProto) -> tuple[int, ...] | None:
    return tuple(tensor.dims) if tensor.data_type in _FLOATS else None


def _constant_shape(node: NodeProto) -> tuple[int, ...] | None:
    """The shape of what a Constant node holds; None where it is no float."""
    for attribute in node.attribute:
        if attribute.name == "value":
            return _float_shape(attribute.t)
        if attribute.name == "value_float":
            return ()
        if attribute.name == "value_floats":
            return (len(attribute.floats),)
    return None
