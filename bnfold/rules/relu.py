"""Relu, LeakyRelu, PRelu: ``f(s · x) = s · f(x)`` for s ≥ 0; no shift passes."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of
from bnfold.rules.passing import refuse_negative
from bnfold.rules.weights import only_map


class Relu(Rule):
    """A line through zero, bent there (Relu-1 to -14, LeakyRelu-1 to -16, PRelu-1 to -16)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """``s · f(x) = f(s · x)``."""
        return _pass(node, maps)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """``f(s · x) = s · f(x)``."""
        return _pass(node, maps)


def _pass(node: ir.Node, maps: Maps) -> Taken | Refusal:
    affine = only_map(node, maps, 0, "slope")
    if isinstance(affine, Refusal):
        return affine
    if affine.has_shift:
        why = f"{node.op_type} bends at zero, a shift would move the bend"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    return refuse_negative(node, affine) or Taken(onward={0: affine})
