"""Count the affine operators of a model by a reading of its own, for any tool's output.

An affine operator is a BatchNormalization, or a Mul, Add, Sub or Div of floats one operand of
which is a constant that varies along at most one axis. What computes from constants is one,
and so is the shape of a value of known shape. Operators that a tool hides inside a fused one
are gone. Nothing of bnfold is used, so that its own count is no witness for itself.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from onnx import inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

_BINARY: Final = frozenset({"Mul", "Add", "Sub", "Div"})
_FOLLOWED: Final = _BINARY | {
    *("Identity", "Cast", "CastLike", "Shape", "Expand", "Reshape", "Transpose", "Squeeze"),
    *("Unsqueeze", "Slice", "Concat", "Gather", "ConstantOfShape", "Range", "Neg", "Sqrt"),
    *("Reciprocal", "Pow", "Exp", "Constant"),
}
"""Operators that count as a constant when everything they read is one."""
_MOST_ELEMENTS: Final = 1 << 22


@dataclass(frozen=True, slots=True)
class AffineCount:
    """How many affine operators a graph has.

    Attributes:
        kinds: How many by operator kind.
        biases: How many of these are an Add or Sub of a bias right behind a MatMul of a
            constant: the linear layer itself, which has no bias of its own.
        operators: How many operators of any kind there are, constants left out.
    """

    kinds: Mapping[str, int]
    biases: int
    operators: int = 0

    @property
    def total(self) -> int:
        """All affine operators that are not the bias of a linear layer."""
        return sum(self.kinds.values()) - self.biases


def count_affine(model: onnx.ModelProto) -> AffineCount:
    """Count the affine operators of a model, functions written out, subgraphs included."""
    if model.functions:
        model = inliner.inline_local_functions(model)
    with contextlib.suppress(Exception):  # without shapes fewer of them are constant, no more
        model = shape_inference.infer_shapes(model)
    scope = _Scope(model)
    kinds: Counter[str] = Counter()
    biases = operators = 0
    for graph, constants in scope.graphs(model.graph, _Constants(scope, {})):
        linear = {
            node.output[0]
            for node in graph.node
            if node.op_type == "MatMul" and any(constants.knows(name) for name in node.input)
        }
        for node in graph.node:
            operators += node.op_type != "Constant"
            if scope.is_standard(node) and _is_affine(node, constants):
                kinds[node.op_type] += 1
                biases += node.op_type in {"Add", "Sub"} and bool(linear & set(node.input))
    return AffineCount(dict(sorted(kinds.items())), biases, operators)


def _is_affine(node: onnx.NodeProto, constants: _Constants) -> bool:
    if node.op_type == "BatchNormalization":
        return True
    if node.op_type not in _BINARY or len(node.input) != 2:
        return False
    known = [constants.knows(name) for name in node.input]
    if sum(known) != 1 or (node.op_type == "Div" and known[0]):
        return False
    array = constants.value(node.input[known.index(True)])
    if array is None or array.size > _MOST_ELEMENTS or array.dtype.kind in "iub":
        return False
    return _axes_varied(array) <= 1


def _axes_varied(array: np.ndarray) -> int:
    return sum(
        array.shape[axis] > 1 and not bool((array == array.take([0], axis=axis)).all())
        for axis in range(array.ndim)
    )


class _Scope:
    """What all graphs of one model share."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.opsets = [entry for entry in model.opset_import if not entry.domain] or [
            onnx.helper.make_opsetid("", 18)
        ]

    @staticmethod
    def is_standard(node: onnx.NodeProto) -> bool:
        """Return whether a node is of the default domain."""
        return node.domain in {"", "ai.onnx"}

    def graphs(
        self, graph: onnx.GraphProto, outer: _Constants
    ) -> Iterator[tuple[onnx.GraphProto, _Constants]]:
        """Yield the graph and all inside it, each with the constants it can read."""
        constants = _Constants(
            self, dict(outer.tensors), dict(outer.makers), dict(outer.shapes)
        )
        constants.read(graph)
        yield graph, constants
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    yield from self.graphs(attribute.g, constants)


@dataclass(slots=True)
class _Constants:
    """Names that hold constants, evaluated when asked for."""

    scope: _Scope
    tensors: dict[str, onnx.TensorProto | np.ndarray]
    makers: dict[str, onnx.NodeProto] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def read(self, graph: onnx.GraphProto) -> None:
        """Add the constants of a graph."""
        self.tensors.update({tensor.name: tensor for tensor in graph.initializer})
        for info in (*graph.input, *graph.value_info, *graph.output):
            kind = info.type.tensor_type
            dims = [
                dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim
            ]
            if kind.HasField("shape") and min(dims, default=0) >= 0:
                self.shapes[info.name] = tuple(dims)
        for node in graph.node:
            if len(node.output) == 1 and self._computes_constant(node):
                self.makers[node.output[0]] = node

    def knows(self, name: str) -> bool:
        """Return whether a name holds a constant."""
        return name in self.tensors or name in self.makers

    def value(self, name: str) -> np.ndarray | None:
        """Return the array of a constant; None when it cannot be computed."""
        held = self.tensors.get(name)
        if isinstance(held, np.ndarray):
            return held
        array = numpy_helper.to_array(held) if held is not None else self._computed(name)
        if array is not None:
            self.tensors[name] = array
        return array

    def _computes_constant(self, node: onnx.NodeProto) -> bool:
        if node.op_type not in _FOLLOWED or not self.scope.is_standard(node):
            return False
        if node.op_type == "Shape":
            return node.input[0] in self.shapes or self.knows(node.input[0])
        if node.op_type == "CastLike":
            return self.knows(node.input[0])
        return all(self.knows(name) for name in node.input if name)

    def _computed(self, name: str) -> np.ndarray | None:
        node = self.makers[name]
        if node.op_type == "Shape" and node.input[0] in self.shapes and not node.attribute:
            return np.array(self.shapes[node.input[0]], np.int64)
        if node.op_type == "CastLike" and not self.knows(node.input[1]):
            return self.value(node.input[0])
        feeds = {entry: self.value(entry) for entry in node.input if entry}
        if any(array is None for array in feeds.values()):
            return None
        infos = [onnx.helper.make_empty_tensor_value_info(entry) for entry in feeds]
        result = [onnx.helper.make_empty_tensor_value_info(name)]
        graph = onnx.helper.make_graph([node], "constant", infos, result)
        alone = onnx.helper.make_model(graph, opset_imports=self.scope.opsets)
        try:
            return ReferenceEvaluator(alone).run(None, feeds)[0]
        except Exception:  # noqa: BLE001  what the reference cannot compute is not known
            return None
