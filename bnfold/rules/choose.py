"""Max, Min and Where: each element is one of the operands, so all must have the same map."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import (
    Edit,
    Maps,
    Rule,
    SetOperator,
    Taken,
    name_of,
    together,
    wrong_axis,
)
from bnfold.rules.meet import give, on_operands, on_result
from bnfold.rules.passing import (
    all_equal,
    is_constant,
    mapped_constant,
    maps_differ,
    refuse_negative,
    turns_around,
)

_OPPOSITE: Final = {"Max": "Min", "Min": "Max"}


class Where(Rule):
    """``y = condition ? a : b`` (Where-9, -16)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """All operands take the map; a constant one is mapped in place."""
        chosen = _choices(node)
        placed = on_operands(node, maps[0], facts, chosen)
        if isinstance(placed, Refusal):
            return placed
        if len(placed) < len(chosen):
            return wrong_axis(node, maps[0], "an operand is broadcast along that axis")
        order = _order(node, maps[0])
        given = give(node, placed, facts)
        if isinstance(order, Refusal) or isinstance(given, Refusal):
            return order if isinstance(order, Refusal) else given
        return replace(given, edits=(*given.edits, *order))

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """All computed operands bring the same map; a constant one is mapped back."""
        placed = on_result(node, maps, facts)
        if isinstance(placed, Refusal):
            return placed
        chosen = _choices(node)
        constants = [i for i in chosen if i not in placed and is_constant(node, i, facts)]
        if len(placed) + len(constants) < len(chosen) or not all_equal(placed.values()):
            return maps_differ(node, "its operands do not all have the same map")
        affine = next(iter(placed.values()))
        taken = together(_mapped_back(node, affine, constants, facts), _order(node, affine))
        return taken if isinstance(taken, Refusal) else Taken(taken.edits, {0: affine})


class Max(Where):
    """``y = max(a, b, …)``, or the minimum (Max-1 to -13); scales s < 0 make it the other."""


def _choices(node: ir.Node) -> list[int]:
    start = 1 if node.op_type == "Where" else 0
    return list(range(start, len(node.inputs)))


def _order(node: ir.Node, affine: Affine) -> tuple[Edit, ...] | Refusal:
    """Return the edit after which the largest is still chosen, or the smallest."""
    if node.op_type == "Where":
        return ()
    if turns_around(affine):
        return (SetOperator(node, _OPPOSITE[node.op_type]),)
    return refuse_negative(node, affine) or ()


def _mapped_back(
    node: ir.Node, affine: Affine, constants: list[int], facts: Facts
) -> tuple[Edit, ...] | Refusal:
    if constants and not affine.is_invertible:
        why = "a scale of zero leaves nothing of its constant"
        return Refusal(Code.MAPS_DIFFER, name_of(node), why)
    edits: list[Edit] = []
    for index in constants:
        rank = facts.rank(node.outputs[0])
        edit = mapped_constant(node, index, affine.inverse(), rank, facts)
        if isinstance(edit, Refusal):
            return edit
        edits.append(edit)
    return tuple(edits)
