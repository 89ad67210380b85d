"""Sum and Mean of any number of values: all take a scale, one of them a shift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Refusal
from bnfold.rules.base import Edit, Maps, Rule, Taken, either, wrong_axis
from bnfold.rules.meet import TAKE_SHIFTS, by_promise, give, on_operands, on_result
from bnfold.rules.passing import (
    all_equal,
    is_constant,
    mapped_constant,
    maps_differ,
    onward,
    refuse_vast,
)

_MOST_WAYS: Final = 1 << 14
"""Operands in all ways together: of very many operands, few are tried as the one to shift."""


class Sum(Rule):
    """``y = a + b + …`` (Sum-1 to -13)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · (a + b + …) + t = (s · a + t) + s · b + …``."""
        affine, count = maps[0], len(node.inputs)
        placed = on_operands(node, affine, facts, range(count))
        if isinstance(placed, Refusal):
            return placed
        if not placed or (affine.has_scale and len(placed) < count):
            return wrong_axis(node, affine, "an operand is broadcast along that axis")
        shift = affine.shift * _divisor(node)
        scales = {index: part.scale_only() for index, part in placed.items()}
        if not affine.has_shift:
            return give(node, scales, facts)
        vast = refuse_vast(node, affine)
        if vast is not None:
            return vast
        ways = (
            {**scales, i: Affine.per_channel(placed[i].axis, affine.scale, shift)}
            for i in by_promise(node, placed, TAKE_SHIFTS, facts)[: _MOST_WAYS // count or 1]
        )
        return either([give(node, way, facts) for way in ways])

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``(s · a + t) + s · b + … = s · (a + b + …) + t``; constants are divided by s."""
        placed = on_result(node, maps, facts)
        if isinstance(placed, Refusal):
            return placed
        vast = next(filter(None, (refuse_vast(node, part) for part in placed.values())), None)
        if vast is not None:
            return vast
        first = next(iter(placed.values()))
        scale = first.scale_only()
        others = (index for index in range(len(node.inputs)) if index not in placed)
        edits: tuple[Edit, ...] | Refusal = ()
        if scale.has_scale:
            if not all_equal(part.scale_only() for part in placed.values()):
                return maps_differ(node, "its operands are not scaled alike")
            edits = _divided(node, others, scale, facts)
        if isinstance(edits, Refusal):
            return edits
        whole = _sum_of_shifts(placed, scale)
        if whole is None:
            return maps_differ(node, "its operands have maps along different axes")
        mean = Affine.per_channel(whole.axis, whole.scale, whole.shift / _divisor(node))
        return Taken(edits, onward({0: mean}).onward)


def _divisor(node: ir.Node) -> int:
    return len(node.inputs) if node.op_type == "Mean" else 1


def _sum_of_shifts(placed: Mapping[int, Affine], scale: Affine) -> Affine | None:
    """Return ``scale`` with all shifts behind it, if they run along one axis."""
    whole = scale
    for part in placed.values():
        shift = part.shift_only()
        if not whole.composes_with(shift):
            return None
        whole = whole.then(shift)
    return whole


def _divided(
    node: ir.Node, rest: Iterable[int], scale: Affine, facts: Facts
) -> tuple[Edit, ...] | Refusal:
    """Divide the operands that bring no map by the scale: they must be constants."""
    others: list[int] = []
    for index in rest:  # of very many operands, the first may stop it
        if not is_constant(node, index, facts):
            return maps_differ(node, "its operands are not scaled alike")
        others.append(index)
    if others and not scale.is_invertible:
        return maps_differ(node, "its constant cannot be divided by a scale of zero")
    edits: list[Edit] = []
    for index in others:
        rank = facts.rank(node.outputs[0])
        edit = mapped_constant(node, index, scale.inverse(), rank, facts)
        if isinstance(edit, Refusal):
            return edit
        edits.append(edit)
    return tuple(edits)
