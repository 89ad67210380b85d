"""ThresholdedRelu: scales pass that do not change which numbers are above its threshold."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.affine import Affine
from bnfold.model.attributes import float_attr
from bnfold.model.facts import Facts
from bnfold.records import Code, Refusal
from bnfold.rules.base import Maps, Rule, Taken, name_of, wrong_axis
from bnfold.rules.float_attributes import set_float
from bnfold.rules.passing import refuse_negative, unknown_shape

_ALPHA: Final = 1.0
_A_POWER_OF_TWO: Final = 0.5
"""What frexp gives for one."""


class ThresholdedRelu(Rule):
    """``f_α(x) = x`` above α, else 0 (ThresholdedRelu-10, -22).

    It jumps at α, by α. A number that stands right there may come to the other side when it
    is rounded otherwise; so only a scale passes that rounds nothing. With α = 0 it is a Relu.
    """

    def take_after(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``s · f_α(x) = f_{s · α}(s · x)`` for a power of two s, or for α = 0 and s ≥ 0."""
        return _pass(node, maps[0], facts, up=True)

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """``f_α(s · x) = s · f_{α / s}(x)`` for a power of two s, or for α = 0 and s ≥ 0."""
        return _pass(node, maps[0], facts, up=False)


def _pass(node: ir.Node, affine: Affine, facts: Facts, *, up: bool) -> Taken | Refusal:
    if affine.has_shift:
        why = "ThresholdedRelu gives zero below its threshold, which a shift would move"
        return Refusal(Code.NEEDS_SCALE_ONLY, name_of(node), why)
    refusal = refuse_negative(node, affine)
    if refusal is not None:
        return refusal
    alpha = float_attr(node, "alpha", _ALPHA)
    if alpha == 0.0:
        return Taken(onward={0: affine})
    if affine.axis is not None:
        return wrong_axis(node, affine, "its threshold is one number")
    scale = float(affine.scale[0])
    if math.frexp(scale)[0] != _A_POWER_OF_TWO:
        why = (
            "it jumps at its threshold, and a scale that is no power of two rounds numbers"
            " to the other side"
        )
        return Refusal(Code.MAPS_DIFFER, name_of(node), why)
    return _scaled(node, affine, alpha, scale if up else 1.0 / scale, facts)


def _scaled(
    node: ir.Node, affine: Affine, alpha: float, factor: float, facts: Facts
) -> Taken | Refusal:
    """Give the threshold the scale, if the type of the data holds it as exactly as before."""
    data = node.inputs[0]
    dtype = None if data is None else facts.dtype(data)
    if dtype is None:
        return unknown_shape(node, "the type of its input")
    held, wanted = (
        float(np.asarray(np.float32(one)).astype(dtype.numpy()))
        for one in (alpha, alpha * factor)
    )
    if wanted != held * factor:
        why = f"its alpha would become {alpha * factor:.3g}, which {dtype.name} rounds"
        return Refusal(Code.OUT_OF_RANGE, name_of(node), why)
    edits = set_float(node, "alpha", alpha * factor, facts)
    return edits if isinstance(edits, Refusal) else Taken(edits, {0: affine})
