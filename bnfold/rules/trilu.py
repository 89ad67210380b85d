"""Trilu: a triangle stays and the rest is zero, so every scale passes."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of
from bnfold.rules.weights import only_map


class Trilu(Rule):
    """The upper or lower triangle of matrices (Trilu-14)."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """``s · tri(x) = tri(s · x)``, along any axis."""
        return _pass(node, maps[0])

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """``tri(s · x) = s · tri(x)``, along any axis."""
        affine = only_map(node, maps, 0, "diagonal")
        return affine if isinstance(affine, Refusal) else _pass(node, affine)


def _pass(node: ir.Node, affine: Affine) -> Taken | Refusal:
    if not affine.has_shift:
        return Taken(onward={0: affine})
    why = "it writes zeros, which a shift in front of it would not reach"
    return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
