"""Add, Sub, Mul, Div where values meet that are no channel map: each takes its part."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.model.uses import uses_of
from bnfold.records import Code, Refusal
from bnfold.rules.base import Edit, Maps, Taken, either, name_of, wrong_axis
from bnfold.rules.passing import (
    channels_of,
    is_constant,
    mapped_constant,
    maps_differ,
    onward,
    refuse_vast,
    unknown_shape,
)

TAKE_SHIFTS: Final = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "BatchNormalization", "Add", "Sub", "MatMul"}
)
TAKE_SCALES: Final = TAKE_SHIFTS - {"Add", "Sub"} | {"Mul", "Div"}


def sum_after(node: ir.Node, affine: Affine, facts: Facts) -> Taken | Refusal:
    """``s · (a ± b) + t = (s · a + t) ± s · b``; a constant takes the shift."""
    both = on_operands(node, affine, facts)
    if isinstance(both, Refusal):
        return both
    if not both or (affine.has_scale and len(both) < 2):
        return wrong_axis(node, affine, "an operand is broadcast along that axis")
    scales = {index: part.scale_only() for index, part in both.items()}
    if not affine.has_shift:
        return give(node, scales, facts)
    vast = refuse_vast(node, affine)
    if vast is not None:
        return vast
    if node.op_type == "Add" and node.inputs[0] is node.inputs[1]:
        half = Affine.per_channel(both[0].axis, affine.scale, affine.shift / 2.0)
        return give(node, dict.fromkeys(both, half), facts)
    shifted = (
        {**scales, index: _with_shift(node, index, both[index], affine)}
        for index in by_promise(node, both, TAKE_SHIFTS, facts)
    )
    return either([give(node, maps, facts) for maps in shifted])


def _with_shift(node: ir.Node, index: int, part: Affine, affine: Affine) -> Affine:
    sign = -1.0 if index == 1 and node.op_type == "Sub" else 1.0
    return Affine.per_channel(part.axis, affine.scale, sign * affine.shift)


def sum_before(node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
    """``(a + t) ± b = (a ± b) + t``; a scale passes if both operands bring the same one."""
    placed = on_result(node, maps, facts)
    if isinstance(placed, Refusal):
        return placed
    sign = -1.0 if node.op_type == "Sub" else 1.0
    other = 1 - next(iter(placed))
    if len(placed) == 1 and is_constant(node, other, facts):
        return _sum_with_constant(node, placed[1 - other], other, sign, facts)
    first, second = (placed.get(index, Affine.uniform()) for index in (0, 1))
    if not first.scale_only().equals(second.scale_only()):
        return maps_differ(node, "its operands are not scaled alike")
    if not first.composes_with(second):
        return maps_differ(node, "its operands have maps along different axes")
    vast = refuse_vast(node, first) or refuse_vast(node, second)
    if vast is not None:
        return vast
    shift = first.shift + sign * second.shift
    axis = second.axis if first.axis is None else first.axis
    return onward({0: Affine.per_channel(axis, first.scale, shift)})


def _sum_with_constant(
    node: ir.Node, affine: Affine, index: int, sign: float, facts: Facts
) -> Taken | Refusal:
    """``(s · x + t) ± c = s · (x ± (c ± t) / s)``: the constant takes the shift."""
    if not affine.is_invertible:
        return maps_differ(node, "its constant cannot be divided by a scale of zero")
    of_constant = Affine.per_channel(
        affine.axis, 1.0 / affine.scale, sign * affine.shift / affine.scale
    )
    edit = mapped_constant(node, index, of_constant, facts.rank(node.outputs[0]), facts)
    if isinstance(edit, Refusal):
        return edit
    return Taken((edit,), onward({0: affine.scale_only()}).onward)


def product_after(node: ir.Node, affine: Affine, facts: Facts) -> Taken | Refusal:
    """``s · (a · b) = (s · a) · b``: one operand takes the scale; of a Div the upper one."""
    if affine.has_shift:
        why = "a product of two values has no place for a shift"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    both = on_operands(node, affine, facts)
    if isinstance(both, Refusal):
        return both
    if node.op_type == "Div":
        both.pop(1, None)
    if not both:
        return wrong_axis(node, affine, "no operand has that axis at full size")
    order = by_promise(node, both, TAKE_SCALES, facts)
    return either([give(node, {index: both[index]}, facts) for index in order])


def product_before(node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
    """``(s · a) · b = s · (a · b)``, ``a / (s · b) = (a / b) / s``; a constant takes s."""
    placed = on_result(node, maps, facts)
    if isinstance(placed, Refusal):
        return placed
    if any(affine.has_shift for affine in placed.values()):
        why = "a shift in front of a product of two values becomes no map behind it"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    first, second = (placed.get(index, Affine.uniform()) for index in (0, 1))
    if node.op_type == "Div":
        if not second.is_invertible:
            return maps_differ(node, "it would divide by a scale of zero")
        second = second.inverse()
    if not first.composes_with(second):
        return maps_differ(node, "its operands have maps along different axes")
    whole = first.then(second)
    constant = next((i for i in (0, 1) if is_constant(node, i, facts)), None)
    if constant is None or (node.op_type == "Div" and constant == 1):
        return onward({0: whole})
    return give(node, {constant: whole}, facts)


def on_operands(
    node: ir.Node, affine: Affine, facts: Facts, indices: Iterable[int] = (0, 1)
) -> dict[int, Affine] | Refusal:
    """Return the map for each operand that is not broadcast along its axis.

    It is on an axis of the operand; for a constant, which may grow, on that of the result.
    """
    if affine.axis is None:
        return dict.fromkeys(indices, affine)
    out_rank = facts.rank(node.outputs[0])
    found: dict[int, Affine] = {}
    for index in indices:
        if is_constant(node, index, facts):
            found[index] = affine
            continue
        value = node.inputs[index]
        rank = None if value is None else facts.rank(value)
        if rank is None or out_rank is None:
            return unknown_shape(node, "the rank of an operand")
        axis = affine.axis - (out_rank - rank)
        if axis >= 0 and channels_of(value, axis, facts) == affine.channels:
            found[index] = affine.on_axis(axis)
    return found


def on_result(node: ir.Node, maps: Maps, facts: Facts) -> dict[int, Affine] | Refusal:
    """Return the maps of the operands on the axes of the result."""
    out_rank = facts.rank(node.outputs[0])
    placed: dict[int, Affine] = {}
    for index, affine in maps.items():
        value = node.inputs[index]
        rank = None if value is None else facts.rank(value)
        if affine.axis is None:
            placed[index] = affine
        elif rank is None or out_rank is None:
            return unknown_shape(node, "the rank of an operand")
        else:
            placed[index] = affine.on_axis(affine.axis + out_rank - rank)
    return placed


def by_promise(
    node: ir.Node, both: Mapping[int, Affine], absorbers: frozenset[str], facts: Facts
) -> list[int]:
    """Return the operands, the one that is most likely to take a part alone first."""
    return sorted(both, key=lambda index: -_promise(node, index, absorbers, facts))


def _promise(node: ir.Node, index: int, absorbers: frozenset[str], facts: Facts) -> int:
    """Rate an operand: constant, absorbed right there, carried by an operator, or stuck."""
    value = node.inputs[index]
    if is_constant(node, index, facts):
        return 3
    if value is None or value.is_graph_output() or len(uses_of(value)) > 1:
        return 0
    producer = value.producer()
    if producer is None:
        return 0
    return 2 if producer.op_type in absorbers else 1


def give(node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
    """Send each operand its map; a constant operand takes it at once."""
    edits: list[Edit] = []
    moving: dict[int, Affine] = {}
    for index, affine in maps.items():
        if affine.is_identity:
            continue
        if not is_constant(node, index, facts):
            moving[index] = affine
            continue
        edit = mapped_constant(node, index, affine, facts.rank(node.outputs[0]), facts)
        if isinstance(edit, Refusal):
            return edit
        edits.append(edit)
    return Taken(tuple(edits), moving)
