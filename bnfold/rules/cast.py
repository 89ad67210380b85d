"""Cast between floating types: a map passes where the type on the other side can carry it."""

from __future__ import annotations

from typing import ClassVar, Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.constants import FLOATS
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of

_EXPONENT_BITS: Final = {
    ir.DataType.FLOAT16: 5,
    ir.DataType.BFLOAT16: 8,
    ir.DataType.FLOAT: 8,
    ir.DataType.DOUBLE: 11,
}
_HEADROOM: Final = 64.0
"""Into float16 a map may stretch values this much: six of fifteen binades either way."""


class Cast(Rule):
    """Y = X in another floating type (Cast-6 to -28)."""

    words: ClassVar = {"round_mode": frozenset({"up", "down", "nearest"})}

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map moves from the type of Y to that of X."""
        source, target = _types(node, facts)
        return _pass(node, maps[0], now=target, then=source)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """The map moves from the type of X to that of Y."""
        source, target = _types(node, facts)
        return _pass(node, maps[0], now=source, then=target)


def _types(node: ir.Node, facts: Facts) -> tuple[ir.DataType | None, ir.DataType | None]:
    source = None if node.inputs[0] is None else facts.dtype(node.inputs[0])
    return source, ir.DataType(node.attributes["to"].as_int())


def _pass(
    node: ir.Node, affine: Affine, *, now: ir.DataType | None, then: ir.DataType | None
) -> Taken | Refusal:
    """Let the map pass unless it stretches values and the type it moves to has less range.

    What was ``cast(s · x + t)`` becomes ``s · cast(x) + t``: x itself must then fit the type.
    """
    if now not in FLOATS or then not in FLOATS or now is None or then is None:
        why = f"it converts {now} to {then}, a map passes between floating types only"
        return Refusal(Code.NOT_FLOAT, name_of(node), why)
    if _EXPONENT_BITS[then] < _EXPONENT_BITS[now]:
        sizes = np.abs(affine.scale)
        fits = (sizes <= _HEADROOM).all() and (sizes >= 1 / _HEADROOM).all()
        if not fits or (np.abs(affine.shift) > _HEADROOM).any():
            why = f"in {then.name} the values without this map may leave the range of the type"
            return Refusal(Code.CAST_RANGE, name_of(node), why)
    return Taken(onward={0: affine})
