"""Operators that compute with integers: no map passes them, and each says why.

Rounding to integers is no continuous function, so what is exact in real numbers (a scale that
``y_scale`` or a dynamic scale would take) moves values by a whole step where it meets a tie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import onnx_ir as ir

from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of

_BEFORE: Final[Mapping[str, str]] = {
    "QuantizeLinear": (
        "it rounds what it reads to integers: with another scale or zero point, values near"
        " the middle of two integers would become the other one"
    ),
    "DynamicQuantizeLinear": (
        "it takes its scale and zero point from the values that it reads, and rounds by them"
    ),
}
_INTEGERS: Final = (
    "it multiplies integers; the scales of its inputs stand elsewhere, and runtimes read them"
    " together with it"
)
_BEHIND: Final = "it gives integers, which take no scale or shift"


class Quantizing(Rule):
    """QuantizeLinear, DynamicQuantizeLinear, products and convolutions of integers."""

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """Refused: it gives integers, or the scale of integers."""
        if node.op_type == "DynamicQuantizeLinear" and 0 not in maps:
            why = "its scale is also that of the integers that it gives"
        else:
            why = _BEHIND
        return Refusal(Code.NOT_FLOAT, name_of(node), why, "fold before quantising")

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:  # noqa: ARG002  contract
        """Refused: it rounds, or computes with integers."""
        why = _BEFORE.get(node.op_type, _INTEGERS)
        return Refusal(Code.NOT_FLOAT, name_of(node), why, "fold before quantising")
