"""Look in front of what hides a fault: a saturation, a choice, a quantiser.

A softmax that is all zeros and ones shows nothing of what is in front of it. A quantiser shows
whole steps: what crosses a tie moves by a step, everything else stays where it is. So the
float input of each first quantiser (none is in front of it) is compared, and what is behind a
quantiser is known to move in steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import onnx_ir as ir

from bnfold.evidence.variants import QUANTISERS, copy_of

_SATURATING: Final = frozenset(
    {"Softmax", "Sigmoid", "HardSigmoid", "Tanh", "Erf", "Softsign", "Clip", "Relu"}
    | {"ArgMax", "ArgMin", "TopK", "Hardmax", "Sign", "Round", "Floor", "Ceil"}
    | {"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Cast"}
)
_MOST_QUANTISERS: Final = 8


@dataclass(frozen=True, slots=True)
class Exposed:
    """Two models with the same additional outputs.

    Attributes:
        fronts: From the position of an output to the position of the one in front of it.
        behind: Positions of outputs that come out of a quantiser of something computed.
        exact: Positions of outputs that no rounding can change: nothing in front is a float.
    """

    original: ir.Model
    folded: ir.Model
    fronts: dict[int, int]
    behind: frozenset[int] = frozenset()
    exact: frozenset[int] = frozenset()


def bare(original: ir.Model, folded: ir.Model) -> Exposed:
    """Both as they are."""
    behind = _stepping(original) | _stepping(folded)
    return Exposed(original, folded, {}, behind, _exact(original))


def expose_fronts(original: ir.Model, folded: ir.Model) -> Exposed:
    """Copies in which what enters the last saturating node of each output is an output too.

    So is what enters the first quantisers. Both are the models themselves if there is nothing
    to add: nothing is written twice then.
    """
    before, after = copy_of(original), copy_of(folded)
    fronts: dict[int, int] = {}
    places: dict[ir.Value, int] = {}
    for index, left, right in tuple(_fronts(before, after)):
        fronts[index] = places.setdefault(left, len(before.graph.outputs))
        if fronts[index] < len(before.graph.outputs):
            continue
        before.graph.outputs.append(left)
        after.graph.outputs.append(right)
    for left, right in tuple(_in_front_of_quantisers(before, after))[:_MOST_QUANTISERS]:
        before.graph.outputs.append(left)
        after.graph.outputs.append(right)
    if len(before.graph.outputs) == len(original.graph.outputs):
        return bare(original, folded)
    behind = _stepping(before) | _stepping(after)
    return Exposed(before, after, fronts, behind, _exact(before))


def _exact(model: ir.Model) -> frozenset[int]:
    """Positions of outputs that are computed without any float, as far as types are known."""
    inexact = {value for value in model.graph.inputs if not _counts(value)}
    for node in model.graph:
        known = all(value is None or _counts(value) for value in node.inputs)
        is_whole = known and all(map(_counts, node.outputs)) and not node.attributes
        if not is_whole or not inexact.isdisjoint(node.inputs):
            inexact.update(node.outputs)
    outputs = enumerate(model.graph.outputs)
    return frozenset(place for place, value in outputs if value not in inexact)


def _counts(value: ir.Value) -> bool:
    return value.dtype is not None and not value.dtype.is_floating_point()


def _in_front_of_quantisers(
    before: ir.Model, after: ir.Model
) -> Iterator[tuple[ir.Value, ir.Value]]:
    """Floats that enter a first quantiser on both sides, matched by the name of its output."""
    others = {node.outputs[0].name: node.inputs[0] for node in _first_quantisers(after)}
    taken = {*before.graph.outputs, *after.graph.outputs}
    for node in _first_quantisers(before):
        left, right = node.inputs[0], others.get(node.outputs[0].name)
        if left is None or right is None or left in taken or right in taken:
            continue
        taken |= {left, right}
        yield _typed(left, left), _typed(right, right)


def _first_quantisers(model: ir.Model) -> Iterator[ir.Node]:
    """Quantisers of something computed, with no other of them in front."""
    stepping: set[ir.Value] = set()
    for node in model.graph:
        if not stepping.isdisjoint(node.inputs):
            stepping.update(node.outputs)
        elif _quantises_computed(node):
            stepping.update(node.outputs)
            yield node


def _quantises_computed(node: ir.Node) -> bool:
    operand = node.inputs[0] if node.inputs else None
    quantises = node.op_type in QUANTISERS or node.op_type.startswith("QLinear")
    return quantises and operand is not None and operand.producer() is not None


def _stepping(model: ir.Model) -> frozenset[int]:
    """Positions of outputs behind a quantiser of something computed."""
    stepping: set[ir.Value] = set()
    for node in model.graph:
        if not stepping.isdisjoint(node.inputs) or _quantises_computed(node):
            stepping.update(node.outputs)
    outputs = model.graph.outputs
    return frozenset(place for place, value in enumerate(outputs) if value in stepping)


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
    if node.op_type == "Cast" and (output.dtype is None or output.dtype.is_floating_point()):
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
