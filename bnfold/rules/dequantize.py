"""DequantizeLinear where no linear operator reads it as its weight: maps stop there."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of
from bnfold.rules.quantized import unreadable


class DequantizeLinear(Rule):
    """As a constant it is a weight: see `bnfold.rules.quantized`."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """Refused: of constants it is a weight, of activations its scale is that of others."""
        blocked = unreadable(node, node.outputs[0], facts)
        if blocked is not None:
            return blocked
        why = "its scale is also that of the integers in front of it"
        return Refusal(Code.NOT_FLOAT, name_of(node), why, "fold before quantising")
