"""HardSigmoid takes a map in front of it; Softmax forgets a shift."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx_ir as ir

from bnfold.model.attributes import float_attr, int_attr
from bnfold.model.facts import Facts
from bnfold.records import Refusal
from bnfold.rules.base import (
    Maps,
    Rule,
    Taken,
    together,
    unknown_operator,
    wrong_axis,
)
from bnfold.rules.float_attributes import set_float
from bnfold.rules.passing import refuse_vast, unknown_shape

_ONE_AXIS_SINCE: Final = 13
_ALPHA: Final = 0.2
_BETA: Final = 0.5


class HardSigmoid(Rule):
    """``y = max(0, min(1, alpha · x + beta))`` (HardSigmoid-1 to -22)."""

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """One scale and shift: alpha becomes ``alpha · s``, beta ``alpha · t + beta``."""
        affine = maps[0]
        if affine.axis is not None:
            return wrong_axis(node, affine, "its alpha and beta are one number each")
        alpha = float(np.float32(float_attr(node, "alpha", _ALPHA)))
        beta = float_attr(node, "beta", _BETA)
        return together(
            set_float(node, "alpha", alpha * float(affine.scale[0]), facts),
            set_float(node, "beta", alpha * float(affine.shift[0]) + beta, facts),
        )


class Softmax(Rule):
    """``exp(x) / Σ exp(x)``, or its logarithm.

    Before opset 13 all axes from ``axis`` on are one.
    """

    def take_before(self, node: ir.Node, maps: Maps, facts: Facts) -> Taken | Refusal:
        """A shift that is the same along its axis vanishes."""
        affine = maps[0]
        if affine.has_scale:
            return unknown_operator(node)
        vast = refuse_vast(node, affine)
        if vast is not None:
            return vast
        if affine.axis is None:
            return Taken()
        rank = None if node.inputs[0] is None else facts.rank(node.inputs[0])
        if rank is None:
            return unknown_shape(node, "the rank of its input")
        if facts.opset() >= _ONE_AXIS_SINCE:
            normalised = affine.axis == int_attr(node, "axis", -1) % rank
        else:
            normalised = affine.axis >= int_attr(node, "axis", 1) % rank
        if normalised:
            return wrong_axis(node, affine, "it normalises along that axis")
        return Taken()
