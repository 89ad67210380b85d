"""Abs: the size of a scale passes, its sign is lost."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of
from bnfold.rules.passing import refuse_negative


class Abs(Rule):
    """``|s · x| = |s| · |x|`` (Abs-1 to -13); no shift passes."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """``s · |x| = |s · x|`` for s ≥ 0."""
        refusal = _refuse_shift(node, maps[0]) or refuse_negative(node, maps[0])
        return refusal or Taken(onward={0: maps[0]})

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """``|s · x| = |s| · |x|`` for any s."""
        affine = maps[0]
        size = Affine.per_channel(affine.axis, np.abs(affine.scale))
        return _refuse_shift(node, affine) or Taken(
            onward={} if size.is_identity else {0: size}
        )


def _refuse_shift(node: ir.Node, affine: Affine) -> Refusal | None:
    if not affine.has_shift:
        return None
    why = "Abs bends at zero, a shift would move the bend"
    return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
