"""CumSum: linear along its axis, so a scale passes that is one number there."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, computed, name_of, wrong_axis
from bnfold.rules.passing import unknown_shape
from bnfold.rules.weights import only_map


class CumSum(Rule):
    """``yᵢ = Σ_{j ≤ i} xⱼ`` along an axis (CumSum-11, -14), or without the last, or back."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · Σ x = Σ s · x``."""
        return _pass(node, maps[0], facts)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``Σ s · x = s · Σ x``."""
        affine = only_map(node, maps, 0, "axis")
        return affine if isinstance(affine, Refusal) else _pass(node, affine, facts)


def _pass(node: ir.Node, affine: Affine, facts: Facts) -> Taken | Refusal:
    if affine.has_shift:
        why = "a shift is added once more at every place, so it becomes no map"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    if affine.axis is None:
        return Taken(onward={0: affine})
    constant = facts.constant(node.inputs[1])
    if isinstance(constant, Refusal):
        return computed(node, constant, "the axis that it sums along is computed")
    rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
    if rank is None:
        return unknown_shape(node, "the rank of its input")
    if affine.axis == int(constant.stored().reshape(-1)[0]) % rank:
        return wrong_axis(node, affine, "it sums along that axis")
    return Taken(onward={0: affine})
