"""Look in front of a saturation: a softmax that is all zeros and ones hides every fault."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from bnfold.evidence.variants import copy_of

_SATURATING: Final = frozenset(
    {"Softmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign", "Clip", "Relu"}
    | {"ArgMax", "ArgMin", "TopK", "Hardmax", "Sign", "Round", "Floor", "Ceil"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual"}
)


@dataclass(frozen=True, slots=True)
class Exposed:
    """Two models with the same additional outputs.

    Attributes:
        fronts: From the position of an output to the position of the one in front of it.
    """

    original: ir.Model
    folded: ir.Model
    fronts: dict[int, int]


def expose_fronts(original: ir.Model, folded: ir.Model) -> Exposed:
    """Copies in which what enters the last saturating node of each output is an output too."""
    before, after = copy_of(original), copy_of(folded)
    fronts: dict[int, int] = {}
    places: dict[ir.Value, int] = {}
    for index, left, right in tuple(_fronts(before, after)):
        fronts[index] = places.setdefault(left, len(before.graph.outputs))
        if fronts[index] < len(before.graph.outputs):
            continue
        before.graph.outputs.append(left)
        after.graph.outputs.append(right)
    return Exposed(before, after, fronts)


def _fronts(before: ir.Model, after: ir.Model) -> Iterator[tuple[int, ir.Value, ir.Value]]:
    pairs = zip(before.graph.outputs, after.graph.outputs, strict=True)
    for index, (left, right) in enumerate(pairs):
        inner, other = _front(left), _front(right)
        if inner is None or other is None or not _same_node(left, right):
            continue
        taken = (*before.graph.outputs, *after.graph.outputs)
        if inner in taken or other in taken:
            continue
        if _op_type(left) == "Softmax":
            inner, other = _logarithm(left), _logarithm(right)
        yield index, _typed(inner, left), _typed(other, right)


def _op_type(output: ir.Value) -> str:
    node = output.producer()
    return "" if node is None else node.op_type


def _logarithm(output: ir.Value) -> ir.Value:
    """Add the logarithm of a Softmax: it does not saturate, and forgets shifts like it."""
    node = output.producer()
    if node is None or node.graph is None:
        return output
    twin = ir.Node(
        "", "LogSoftmax", node.inputs, node.attributes.values(), name=f"{output.name}/log"
    )
    twin.outputs[0].name = f"{output.name}/log"
    node.graph.insert_after(node, twin)
    return twin.outputs[0]


def _front(output: ir.Value) -> ir.Value | None:
    node = output.producer()
    if node is None or node.op_type not in _SATURATING or node.domain:
        return None
    operand = node.inputs[0]
    is_computed = operand is not None and operand.producer() is not None
    return operand if is_computed else None


def _same_node(left: ir.Value, right: ir.Value) -> bool:
    before, after = left.producer(), right.producer()
    if before is None or after is None or before.op_type != after.op_type:
        return False
    return _settings(before) == _settings(after)


def _settings(node: ir.Node) -> dict[str, object]:
    return {name: attribute.value for name, attribute in node.attributes.items()}


def _typed(value: ir.Value, output: ir.Value) -> ir.Value:
    """The runtime wants a type on every output; most saturating nodes keep their input's."""
    if value.type is None:
        kind = output.dtype
        if kind is None or not kind.is_floating_point():
            kind = _kind_upstream(value)
        value.type = None if kind is None else ir.TensorType(kind)
    return value


def _kind_upstream(value: ir.Value | None) -> ir.DataType | None:
    """The type of the nearest float that this value is computed from."""
    while value is not None:
        if value.dtype is not None and value.dtype.is_floating_point():
            return value.dtype
        node = value.producer()
        value = node.inputs[0] if node is not None and node.inputs else None
    return None
