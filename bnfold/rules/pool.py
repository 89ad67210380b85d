"""Pooling: a maximum keeps the order, an average is linear; both work channel by channel."""

from __future__ import annotations

from typing import Final

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import int_attr, ints_attr
from bnfold.model.facts import Facts
from bnfold.model.uses import is_used
from bnfold.records import Code, Refusal
from bnfold.rules.base import AUTO_PADS, Maps, Rule, Taken, name_of, wrong_axis
from bnfold.rules.passing import refuse_negative
from bnfold.rules.windows import reads_padding

_FIRST_POOLED_AXIS: Final = 2


class MaxPool(Rule):
    """``max(s · x + t) = s · max(x) + t`` for s ≥ 0 (MaxPool-1 to -22, GlobalMaxPool-1).

    What MaxPool pads is never the maximum, so a shift passes with padding too.
    """

    words = AUTO_PADS

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """The map of the maxima becomes that of the values."""
        return _pass_maximum(node, maps)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """The map of the values becomes that of the maxima."""
        return _pass_maximum(node, maps)


class AveragePool(Rule):
    """``mean(s · x + t) = s · mean(x) + t`` (AveragePool-1 to -22).

    The taps of a window sum to one unless zeros of the padding are counted.
    """

    words = AUTO_PADS

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the averages becomes that of the values."""
        return _pass_average(node, maps[0], facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map of the values becomes that of the averages."""
        return _pass_average(node, maps[0], facts)


def _pass_maximum(node: ir.Node, maps: Maps) -> Taken | Refusal:
    indices = node.outputs[1:]
    if set(maps) != {0} or any(is_used(v) or v.is_graph_output() for v in indices):
        why = "its indices are read: scaled values may round to ties that others win"
        return Refusal(Code.SHARED_VALUE, name_of(node), why)
    affine = maps[0]
    refusal = _refuse_axis(node, affine) or refuse_negative(node, affine)
    return refusal or Taken(onward={0: affine})


def _pass_average(node: ir.Node, affine: Affine, facts: Facts) -> Taken | Refusal:
    if affine.has_shift and _counts_padding(node, facts):
        why = "it counts the zeros of its padding, which the shift does not reach"
        remedy = "the scale alone can be folded"
        return Refusal(Code.SHIFT_MEETS_PADDING, name_of(node), why, remedy)
    return _refuse_axis(node, affine) or Taken(onward={0: affine})


def _counts_padding(node: ir.Node, facts: Facts) -> bool:
    """Return whether the divisor may count places beyond the input.

    With ceil_mode the last window may reach beyond the input without any pads.
    """
    if node.op_type != "AveragePool" or not int_attr(node, "count_include_pad", 0):
        return False
    return reads_padding(node, ints_attr(node, "kernel_shape"), facts)


def _refuse_axis(node: ir.Node, affine: Affine) -> Refusal | None:
    if affine.axis is None or affine.axis < _FIRST_POOLED_AXIS:
        return None
    return wrong_axis(node, affine, "that axis is pooled")
