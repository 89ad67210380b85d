"""TopK: the largest stay the largest under a positive scale and a shift."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr
from bnfold.model.facts import Facts
from bnfold.model.uses import is_used
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of, wrong_axis
from bnfold.rules.passing import refuse_negative, unknown_shape

_LAST: Final = -1


class TopK(Rule):
    """Values in order, and where they stood (TopK-1: k is an attribute, -10 to -24: an input).

    Rounding keeps the order of what it does not make equal, so the values are those of the
    scaled ones; which of equal ones comes first, only the indices tell.
    """

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · top(x) + t = top(s · x + t)`` for s ≥ 0, the same along its axis."""
        return _pass(node, maps, facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``top(s · x + t) = s · top(x) + t`` for s ≥ 0, the same along its axis."""
        return _pass(node, maps, facts)


def _pass(node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
    indices = node.outputs[1:]
    if set(maps) != {0} or any(is_used(v) or v.is_graph_output() for v in indices):
        why = "its indices are read: scaled values may round to ties that others win"
        return Refusal(Code.SHARED_VALUE, name_of(node), why)
    refusal = _refuse_axis(node, maps[0], facts) or refuse_negative(node, maps[0])
    return refusal or Taken(onward={0: maps[0]})


def _refuse_axis(node: ir.Node, affine: Affine, facts: Facts) -> Refusal | None:
    if affine.axis is None:
        return None
    rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
    if rank is None:
        return unknown_shape(node, "the rank of its input")
    if affine.axis == int_attr(node, "axis", _LAST) % rank:
        return wrong_axis(node, affine, "it puts the values of that axis in order")
    return None
