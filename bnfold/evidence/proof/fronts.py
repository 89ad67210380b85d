"""What is compared in front of an operator that takes steps.

Behind a QuantizeLinear, a comparison or an ArgMax most differences are gone: numbers that are
1 % apart give the same step. So where a segment takes steps, what goes into them is compared
too, on both sides, and a difference there counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import onnx_ir as ir

from bnfold.evidence.proof.comparer import Comparer, Pair
from bnfold.evidence.proof.sides import Segment, Side
from bnfold.evidence.reference.smooth import is_smooth
from bnfold.model.attributes import int_attr
from bnfold.model.graphs import subgraphs_of

# fmt: off
_STEPS: Final = {
    "QuantizeLinear": 1, "DynamicQuantizeLinear": 1, "Round": 1, "Floor": 1, "Ceil": 1,
    "Sign": 1, "ArgMax": 1, "ArgMin": 1, "TopK": 1, "Hardmax": 1, "Cast": 1, "Equal": 2,
    "Greater": 2, "GreaterOrEqual": 2, "Less": 2, "LessOrEqual": 2,
}
# fmt: on
"""Operators that are not continuous, and how many of their inputs they take steps of."""


_ABSOLUTE: Final = frozenset({"QuantizeLinear", "Round", "Floor", "Ceil", "Cast"})
"""What goes into these may be no map of its counterpart, unless their own numbers changed."""


_HANDS_ON: Final = frozenset({"Resize", "Upsample", "Shape", "Size", "Range"})
"""Operators that take steps of sizes, scales and indices, but not of values."""


class Front(NamedTuple):
    """What goes into one step.

    Attributes:
        pair: The segments that compute it.
        is_absolute: Whether it has to be the same, and not just a map of its counterpart.
    """

    pair: Pair
    is_absolute: bool


def fronts(pair: Pair, comparer: Comparer) -> Iterator[Front]:
    """Yield what goes into each step that both segments take.

    Steps are the same if they are of one kind and write a value of one name, or if both sides
    take equally many of that kind: then in their order.
    """
    taken = [
        [node for node in segment.nodes if _takes_steps(node, side)]
        for segment, side in (
            (pair.original, comparer.original),
            (pair.folded, comparer.folded),
        )
    ]
    before, after = taken
    if [node.op_type for node in before] != [node.op_type for node in after]:
        names = {_written(node): node for node in before}
        twins = [(names.get(_written(node)), node) for node in after]
    else:
        twins = list(zip(before, after, strict=True))
    for one, other in twins:
        if one is not None and one.op_type == other.op_type:
            yield from _between(one, other, pair, comparer)


def is_steady(pair: Pair, comparer: Comparer) -> bool:
    """Return whether nothing in a folded segment turns what nudges move into a step.

    A comparison of numbers that no nudge reaches chooses the same every time.
    """
    moved = {name for name in pair.folded.inputs if comparer.is_hazy(name)}
    for node in pair.folded.nodes:
        reads = (value.name for value in comparer.folded.reads(node))
        if moved.isdisjoint(reads) and not comparer.is_nudged(node, pair.kept):
            continue
        if not _turns_little_into_little(node, comparer.folded):
            return False
        moved.update(value.name or "" for value in node.outputs)
    return True


def _turns_little_into_little(node: ir.Node, side: Side) -> bool:
    """Look into bodies too; what chooses a branch or ends a loop is a step where made."""
    bodies = list(subgraphs_of(node))
    if bodies:
        return all(_turns_little_into_little(inner, side) for body in bodies for inner in body)
    if is_smooth(node) or node.op_type in _HANDS_ON:
        return True
    return node.op_type in _STEPS and not _takes_steps(node, side)


def _between(one: ir.Node, other: ir.Node, pair: Pair, comparer: Comparer) -> Iterator[Front]:
    numbers = [v for v in other.inputs[1:] if v is not None and comparer.folded.is_constant(v)]
    same = all(map(comparer.is_same_constant, numbers))
    for slot in range(_STEPS[one.op_type]):
        left, right = one.inputs[slot], other.inputs[slot]
        if left is None or right is None or left.producer() is None:
            continue
        if comparer.original.is_constant(left) or comparer.folded.is_constant(right):
            continue
        before = Pair(
            _up_to(left, pair.original, comparer.original),
            _up_to(right, pair.folded, comparer.folded),
        )
        yield Front(before, same and one.op_type in _ABSOLUTE)


def _takes_steps(node: ir.Node, side: Side) -> bool:
    if node.op_type not in _STEPS or node.domain not in ("", "ai.onnx"):
        return False
    if all(value is None or side.is_constant(value) for value in node.inputs):
        return False
    if node.op_type == "TopK" and not _tells_places(node):
        return False
    target = ir.DataType(int_attr(node, "to", int(ir.DataType.FLOAT)))
    return node.op_type != "Cast" or not target.is_floating_point()


def _tells_places(node: ir.Node) -> bool:
    """Return whether anybody reads where the largest stood; their values are continuous."""
    return any(value.is_graph_output() or value.uses() for value in node.outputs[1:])


def _written(node: ir.Node) -> str:
    return next((value.name for value in node.outputs if value.name), "")


def _up_to(value: ir.Value, segment: Segment, side: Side) -> Segment:
    """Return the part of a segment that computes one of the values inside of it."""
    needed: set[ir.Node] = set()
    pending = [value]
    inside = set(segment.nodes)
    while pending:
        node = pending.pop().producer()
        if node is not None and node in inside and node not in needed:
            needed.add(node)
            pending.extend(side.reads(node))
    nodes = tuple(node for node in segment.nodes if node in needed)
    read = {one.name or "" for node in nodes for one in side.reads(node)}
    read.add(value.name or "")
    inputs = tuple(name for name in segment.inputs if name in read)
    return Segment(value, nodes, inputs)
